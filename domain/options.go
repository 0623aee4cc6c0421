package domain

// Options say how the connections of a mapping are carried. docs/howto/
// add-a-mapping-option.md says how to add one.
//
// An option is optional in JSON, so that the events of mappings without the option keep
// their shape. The tag "unset" gives the meaning of the zero value.
type Options struct{}

func (o Options) check(f *faults) { f.bounds(o) }

// Shown gives the options, with the meaning of those that are not set.
func (o Options) Shown() Options {
	fillUnset(&o)
	return o
}
