package domain

// Place is a place in a log: a position, and the id of the record at that position. Two
// logs that parted have different records at the same position, so a follower that
// knows a place can tell whether a log is still the same log.
type Place struct {
	Position Position
	EventID  EventID // zero at position 0, and when it is not known
}

// PlaceOf gives the place of a record.
func PlaceOf(r Record) Place { return Place{Position: r.Position, EventID: r.ID} }

// Parted tells whether two places cannot be in one log.
func (p Place) Parted(from Place) bool {
	return p.Position == from.Position && !p.EventID.IsZero() && !from.EventID.IsZero() && p.EventID != from.EventID
}
