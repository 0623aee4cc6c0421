package domain

// Options say how the connections of a mapping are carried. docs/howto/
// add-a-mapping-option.md says how to add one.
//
// An option is optional in JSON, so that the events of mappings without it stay as
// they are, and its zero value means what its tag "unset" says.
type Options struct{}

func (o Options) check(f *faults) { f.bounds(o) }

// Shown gives the options with what they mean where nobody has set them.
func (o Options) Shown() Options {
	fillUnset(&o)
	return o
}
