package domain

// DeleteMapping ends a mapping.
type DeleteMapping struct {
	ID     int64
	IfHeld bool // only one that ends with somebody's agent
}

// CommandName implements [Command].
func (DeleteMapping) CommandName() string { return "delete_mapping" }

// Subject implements [Command].
func (c DeleteMapping) Subject() StreamID { return MappingStream(c.ID) }

// Account implements [Command].
func (DeleteMapping) Account() int64 { return 0 }

// Reads implements [Command].
func (c DeleteMapping) Reads() []StreamID { return []StreamID{MappingStream(c.ID)} }

// Decide implements [Command].
func (c DeleteMapping) Decide(s States) (Decision, error) {
	m, err := s.liveMapping(c.ID)
	if err != nil {
		return Decision{}, err
	}
	if c.IfHeld && m.HeldBy == "" {
		return Decision{}, refuse(CodeMappingKept, "The mapping lasts, and does not end with an agent.")
	}
	d := Decision{Account: m.UserID}
	return d, deleteMappings(s, &d, []int64{c.ID})
}

// deleteMappings adds the events that end the given live mappings to the decision.
func deleteMappings(s States, d *Decision, ids []int64) error {
	if err := s.needMappings(ids); err != nil {
		return err
	}
	for _, id := range ids {
		m := s.mapping(id)
		d.Releases = append(d.Releases, m.claims()...)
		d.addOwned(m.UserID, MappingStream(id), MappingDeleted{})
		d.Closes = append(d.Closes, MappingStream(id))
		d.freePublic(m, &Mapping{})
		resources := m.resources()
		for _, account := range m.Accounts() {
			d.add(QuotaStream(account), QuotaReturned{Resources: resources, ID: id})
		}
	}
	return nil
}

// needMappings asks for all mappings at once, and then for all their quotas, ports
// and hosts at once. One round for each mapping would make a large delete quadratic.
func (s States) needMappings(ids []int64) error {
	streams := make([]StreamID, 0, len(ids))
	for _, id := range ids {
		streams = append(streams, MappingStream(id))
	}
	if err := s.need(streams...); err != nil {
		return err
	}
	var behind []StreamID
	for _, id := range ids {
		m := s.mapping(id)
		for _, account := range m.Accounts() {
			behind = append(behind, QuotaStream(account))
		}
		if m.Live() {
			behind = append(behind, m.publicStreams()...)
		}
	}
	return s.need(behind...)
}
