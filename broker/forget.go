package broker

import (
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// ForgetAfter is how long after the erasure of a user the entries before it stay on a
// feed. Followers that are so much behind take a snapshot.
const ForgetAfter = 5 * time.Second

// Forgets reports whether a feed must forget the entries before a record: they carry
// addresses readable, those of an erased user among them.
func Forgets(r domain.Record) bool { return r.Name == domain.UserErased{}.EventName() }
