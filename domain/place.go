package domain

// Place is a place in a log: a position, and the id of the record at it. Two logs
// that parted have other records at the same position, so that who knows a place
// can tell whether a log is still the one it was.
type Place struct {
	Position Position
	EventID  EventID // zero at position 0, and where it is not known
}

// PlaceOf gives the place of a record.
func PlaceOf(r Record) Place { return Place{Position: r.Position, EventID: r.ID} }

// Parted tells whether two places cannot be in one log.
func (p Place) Parted(from Place) bool {
	return p.Position == from.Position && !p.EventID.IsZero() && !from.EventID.IsZero() && p.EventID != from.EventID
}
