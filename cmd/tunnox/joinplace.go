package main

import "slices"

// placeFor says where the identity at a server goes: to where somebody says, to the
// context of that server if there is one, or to a new one.
func (j *joiner) placeFor(servers, pins []string) (place, error) {
	named, name := j.state, j.contextFlag()
	if named == "" && name == "" {
		named, name = j.variable("TUNNOX_STATE"), j.variable("TUNNOX_CONTEXT")
	}
	switch {
	case j.as != "" && j.state != "":
		return place{}, usageError("--as and --state exclude each other: a named directory is outside of all contexts")
	case j.as != "" && name != "" && j.as != name:
		return place{}, usageError("--as %s and the context %s are different ones", j.as, name)
	case j.as != "":
		return j.named(j.as)
	case name != "" || named != "":
		if named == "" {
			return j.named(name)
		}
		return j.surroundings.place(j.state) // which refuses both of the environment
	}
	return j.unnamed(servers, pins)
}

// named gives the context of a name, or a new one.
func (j *joiner) named(name string) (place, error) {
	all, err := j.contexts()
	if err != nil {
		return place{}, err
	}
	if i := slices.IndexFunc(all, func(p place) bool { return p.name == name }); i >= 0 {
		return all[i], nil
	}
	j.as = name
	return j.newContext(name)
}

// unnamed gives the context of a server. A second invitation of one server is for the
// identity that is there, unless a name says that it is not.
func (j *joiner) unnamed(servers, pins []string) (place, error) {
	if p, found, err := j.sameServer(servers, pins); err != nil || found {
		return p, err
	}
	first := place{dir: defaultStateDir(j.surroundings)}
	k, err := first.read()
	if err != nil {
		return place{}, err
	}
	if k.id.ClientID != 0 && len(k.joined.Servers) == 0 {
		return first, nil // it is of a server that no file names, and may be of this one
	}
	name := nameOfServer(servers[0])
	all, err := j.contexts()
	if err != nil {
		return place{}, err
	}
	if slices.ContainsFunc(all, func(p place) bool { return p.name == name }) {
		return place{}, usageError("the context %s is that of another server: give this one a name with --as", name)
	}
	return j.newContext(name)
}
