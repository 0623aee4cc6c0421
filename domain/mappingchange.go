package domain

import (
	"cmp"
	"reflect"
	"slices"
)

// ChangeMapping changes parts of a mapping. The patch may hold fields that never change,
// so that a caller can send back all it read; another value for such a field is a fault.
type ChangeMapping struct {
	ID    int64
	By    int64 // the user who asks, 0 = an admin
	Patch Patch
	offer PublicOffer // for another public port or host
}

// WantsPublic implements [PublicCommand].
func (c ChangeMapping) WantsPublic() bool {
	return slices.ContainsFunc([]string{"public_port", "public_host", "public_path"}, func(name string) bool {
		_, ok := c.Patch.get(name)
		return ok
	})
}

// Offered implements [PublicCommand].
func (c ChangeMapping) Offered(o PublicOffer) Command {
	c.offer = o
	return c
}

// fixedOfMapping are the fields of a mapping that never change.
var fixedOfMapping = []string{"user_id", "source_client_id", "target_client_id", "source_user_id", "target_user_id", "share_id", "protocol"}

// CommandName implements [Command].
func (ChangeMapping) CommandName() string { return "change_mapping" }

// Subject implements [Command].
func (c ChangeMapping) Subject() StreamID { return MappingStream(c.ID) }

// Account implements [Command].
func (ChangeMapping) Account() int64 { return 0 }

// Reads implements [Command].
func (c ChangeMapping) Reads() []StreamID { return []StreamID{MappingStream(c.ID)} }

// Decide implements [Command].
func (c ChangeMapping) Decide(s States) (Decision, error) {
	m, err := s.liveMapping(c.ID)
	if err != nil {
		return Decision{}, err
	}
	var f faults
	f.fixedBy(c.Patch, m, fixedOfMapping...)
	parts := m.Parts()
	f.patch(&parts, c.Patch)
	switch kind := m.OriginKind(); { // a choice is kept
	case kind == OriginPort && parts.PublicPort == PortRange{}:
		parts.PublicPort = m.PublicPort
	case kind == OriginHost && parts.PublicHost == "":
		parts.PublicHost = m.PublicHost
	}
	parts.Service = parts.Service.instead(m.Service).complete()
	if m.Public() {
		parts = parts.complete(m.OriginKind())
	}
	parts = parts.withTargets(m.Parts())
	parts.Options = parts.Options.kept(m.Options)
	f.targets(m.Protocol, m.TargetClientID, parts)
	f.parts(m.Protocol, m.OriginKind(), parts)
	f.changedBy(c.By, m, parts)
	if err := f.err("The mapping cannot be changed as asked."); err != nil {
		return Decision{}, err
	}
	if parts.Options, err = parts.Options.hashed(MappingStream(c.ID)); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: m.UserID}
	if !slices.Equal(parts.Targets, m.Targets) {
		if err := s.ownTargets(parts.Targets, m.UserID, m.HasEnd); err != nil {
			return Decision{}, err
		}
	}
	next := *m
	next.setParts(parts)
	moved := next.Origin != m.Origin && m.Public()
	if moved {
		if next.Origin, err = s.choosePublic(c.offer, &next); err != nil {
			return Decision{}, err
		}
		parts.Origin, moved = next.Origin, next.Origin != m.Origin
	}
	if parts.equal(m.Parts()) {
		return d, nil
	}
	d.exchange(m.claims(), next.claims())
	d.add(MappingStream(c.ID), MappingChanged{parts})
	if further := next.furtherClients(); !slices.Equal(further, m.furtherClients()) {
		for _, account := range m.Accounts() {
			if err := s.need(QuotaStream(account)); err != nil {
				return Decision{}, err
			}
			if err := s.quota(account).roomAt(slices.DeleteFunc(slices.Clone(further), m.HasEnd)...); err != nil {
				return Decision{}, err
			}
			d.add(QuotaStream(account), QuotaMoved{ID: c.ID, SourceClientID: m.SourceClientID, TargetClientID: m.TargetClientID, FurtherClientIDs: further})
		}
	}
	if moved {
		if err := s.need(m.publicStreams()...); err != nil {
			return Decision{}, err
		}
		d.freePublic(m, &next)
		d.takePublic(&next, m)
		if err := s.recount(&d, m, &next); err != nil {
			return Decision{}, err
		}
	}
	return d, nil
}

// changedBy refuses changes of what is not the user's. Where the source listens is on
// the machine of the source's user, what is dialled is in the network of the target's
// user, and the rest belongs to the mapping's owner.
func (f *faults) changedBy(user int64, m *Mapping, next Parts) {
	if user == 0 {
		return
	}
	was := m.Parts()
	f.others(was.Origin, next.Origin, user == m.userOf(m.SourceClientID, m.SourceUserID), "belongs to the user of the source client")
	f.others(was.Service, next.Service, user == m.userOf(m.TargetClientID, m.TargetUserID), "belongs to the user of the target client")
	was.Origin, next.Origin, was.Service, next.Service = Origin{}, Origin{}, Service{}, Service{}
	f.others(was, next, user == m.UserID, "belongs to the owner of the mapping")
}

// userOf gives the user of one end of the mapping, 0 for an anonymous client, which is
// nobody's.
func (m *Mapping) userOf(clientID, userID int64) int64 {
	if IsAnonymous(clientID) {
		return 0
	}
	return cmp.Or(userID, m.UserID)
}

// others refuses each field of a part that is another one now, unless it is the user's.
func (f *faults) others(was, next any, own bool, why string) {
	if own {
		return
	}
	before, after := reflect.ValueOf(was), reflect.ValueOf(next)
	for _, field := range Fields(was) {
		if !reflect.DeepEqual(before.FieldByIndex(field.index).Interface(), after.FieldByIndex(field.index).Interface()) {
			f.add(field.Name, why)
		}
	}
}

// SetMappingEnabled enables or disables a mapping. It succeeds, and changes nothing,
// when the mapping is in that state.
type SetMappingEnabled struct {
	ID      int64
	Enabled bool
}

// CommandName implements [Command].
func (c SetMappingEnabled) CommandName() string { return enableName("mapping", c.Enabled) }

// Subject implements [Command].
func (c SetMappingEnabled) Subject() StreamID { return MappingStream(c.ID) }

// Account implements [Command].
func (SetMappingEnabled) Account() int64 { return 0 }

// Reads implements [Command].
func (c SetMappingEnabled) Reads() []StreamID { return []StreamID{MappingStream(c.ID)} }

// Decide implements [Command].
func (c SetMappingEnabled) Decide(s States) (Decision, error) {
	m, err := s.liveMapping(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: m.UserID}
	if c.Enabled != m.Disabled {
		return d, nil
	}
	for _, account := range m.Accounts() {
		if err := s.need(QuotaStream(account)); err != nil {
			return Decision{}, err
		}
		active := []Resource{ResourceActiveMapping}
		if !c.Enabled {
			d.add(QuotaStream(account), QuotaReturned{Resources: active, ID: c.ID})
			continue
		}
		err := s.quota(account).take(&d, QuotaTaken{Resources: active, ID: c.ID,
			SourceClientID: m.SourceClientID, TargetClientID: m.TargetClientID})
		if err != nil {
			return Decision{}, err
		}
	}
	if c.Enabled {
		d.add(MappingStream(c.ID), MappingEnabled{})
	} else {
		d.add(MappingStream(c.ID), MappingDisabled{})
	}
	return d, nil
}
