package domain

import (
	"reflect"
	"slices"
)

// Options say how the connections of a mapping are carried. docs/howto/
// add-a-mapping-option.md says how to add one.
//
// An option is optional in JSON, so that the events of mappings without the option keep
// their shape. The tag "unset" gives the meaning of the zero value. An option with the tag "of"
// is for mappings that carry one of these protocols, and refused for others; one with the
// tag "at" is for mappings with these kinds of origins.
type Options struct {
	IdleSeconds   int          `json:"idle_seconds,omitempty" minimum:"1" maximum:"3600" unset:"60" of:"udp" doc:"udp: a flow that is silent for so long ends" example:"60"`
	HeldBy        Holder       `json:"held_by,omitempty" enum:"source,both,target" doc:"The end whose agent holds the mapping: the mapping ends when that agent has been away for a minute. Left out or empty: the mapping lasts" example:"target"`
	Socks         *SocksAccess `json:"socks,omitempty" of:"socks5" doc:"socks5: what clients prove themselves with to the source agent. Left out: nothing; {}: nothing any more"`
	ProxyProtocol string       `json:"proxy_protocol,omitempty" enum:"none,v1,v2" unset:"none" of:"tcp,tls" doc:"tcp and tls: tells the service the visitor's address, with a header of the PROXY protocol before the first byte" example:"v2"`
	Targets       []Target     `json:"targets,omitempty" of:"tcp,http,tls" maxItems:"16" doc:"tcp, http and tls: several services for the connections, each behind a client of the owner; the first is target_client_id and target. One that does not answer is passed over. Left out: one service; []: one again" example:"[{\"client_id\":600000001,\"target\":\"127.0.0.1:80\"},{\"client_id\":600000002,\"target\":\"127.0.0.1:80\"}]"`
	Encryption    string       `json:"encryption,omitempty" enum:"e2e,transport" unset:"transport" of:"tcp,udp,socks5" at:"agent" doc:"From agent to agent: e2e encrypts from one agent to the other, so that no server can read what is carried; both agents must have a key. transport encrypts on each connection only, and servers see the bytes" example:"e2e"`
	Files         *Files       `json:"files,omitempty" of:"http" doc:"http, with a directory as its service: how that is served. Left out, and {}: without lists, and without files whose names begin with a dot"`
	Access        *Access      `json:"access,omitempty" of:"tcp,udp,tls,http" at:"port,host" doc:"Who may come in at a public port or host. Left out: everybody; {}: everybody from now on"`
	HealthCheck   *HealthCheck `json:"health_check,omitempty" of:"tcp,http,tls" doc:"How the targets are looked at while no visitor comes. Left out: a target is found to be away by the visitor who comes first, who does not notice; {}: so from now on"`
	HTTP          *HTTPOptions `json:"http,omitempty" of:"http" doc:"http: what is changed of requests and answers. Left out: nothing; {}: nothing any more"`
}

// EncryptionE2E is the value of the option encryption with which agents encrypt from one
// to the other.
const EncryptionE2E = "e2e"

// EndToEnd tells whether nobody but the two agents may read what is carried.
func (o Options) EndToEnd() bool { return o.Encryption == EncryptionE2E }

func (o Options) check(f *faults, p Protocol, kind OriginKind) {
	f.bounds(o)
	if o.EndToEnd() && len(o.Targets) > 0 { // the source agent has to know whose key it is before a target is chosen
		f.add("encryption", "e2e is for mappings with one target: leave targets out")
	}
	if o.EndToEnd() && o.HealthCheck != nil { // the forwarder that looks has no key
		f.add("health_check", "is not for mappings with encryption e2e: leave it out")
	}
	o.Access.check(f, p, kind)
	o.HTTP.check(f)
	o.HealthCheck.check(f)
	if o.Socks != nil {
		f.bounds(o.Socks)
		o.Socks.check(f)
	}
	v := reflect.ValueOf(o)
	for _, field := range Fields(o) {
		switch {
		case v.FieldByIndex(field.index).IsZero():
		case !field.isOf(p):
			f.add(field.Name, "is an option of "+anyOf(field.Of)+" mappings, and this one is "+string(p)+": leave it out")
		case !field.isAt(kind) && kind != OriginAgent:
			f.add(field.Name, "is an option of mappings from agent to agent, and this one is public: leave it out")
		case !field.isAt(kind):
			f.add(field.Name, "is an option of public mappings, and this one has a source client: leave it out")
		}
	}
}

// ParseOptions reads options from a JSON object as the API takes it; "" is none. An
// option that there is not, or is of a wrong kind, is a fault with its name.
func ParseOptions(text string) (o Options, err error) {
	if text == "" {
		return o, nil
	}
	var f faults
	var p Patch
	if err := decodeObject([]byte(text), &p); err != nil {
		f.add("options", "must be a JSON object")
		return o, f.err("The options cannot be read.")
	}
	known := Fields(o)
	for name := range p {
		if !slices.ContainsFunc(known, func(field Field) bool { return field.Name == name }) {
			f.add(name, "is no option of a mapping")
		}
	}
	f.patch(&o, p)
	return o, f.err("The options cannot be read.")
}

// Shown gives the options of a mapping that carries p, with what they mean where
// nobody has set them.
func (o Options) Shown(p Protocol) Options {
	shown := o
	fillUnset(&shown)
	to, set := reflect.ValueOf(&shown).Elem(), reflect.ValueOf(o)
	for _, field := range Fields(o) {
		if !field.isOf(p) {
			to.FieldByIndex(field.index).Set(set.FieldByIndex(field.index))
		}
	}
	return shown.WithoutSecrets()
}

// WithoutSecrets gives the options without what passwords are checked with.
func (o Options) WithoutSecrets() Options {
	if o.Socks != nil {
		o.Socks = &SocksAccess{Username: o.Socks.Username}
	}
	o.Access = o.Access.shown()
	return o
}

// kept gives the options with the passwords that there were, where a change says
// nothing of them.
func (o Options) kept(was Options) Options {
	o.Socks, o.Access = o.Socks.kept(was.Socks), o.Access.kept(was.Access)
	return o
}

// hashed gives the options of what has the event stream as they are kept: with hashes for
// passwords, and without objects that have nothing in them.
func (o Options) hashed(of StreamID) (_ Options, err error) {
	o.Access, o.HTTP, o.HealthCheck = o.Access.tidy(), o.HTTP.tidy(), o.HealthCheck.tidy()
	o.Socks, err = o.Socks.hashed(of)
	return o, err
}

// isAt tells whether the option is one of mappings whose connections come in at a kind of
// origin.
func (f Field) isAt(kind OriginKind) bool {
	return len(f.At) == 0 || slices.Contains(f.At, string(kind))
}

// isOf tells whether the option is one of mappings that carry p.
func (f Field) isOf(p Protocol) bool { return len(f.Of) == 0 || slices.Contains(f.Of, string(p)) }
