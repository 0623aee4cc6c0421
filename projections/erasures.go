package projections

import (
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// erasureRow is what an erasure comes to in the read models: nothing, since the
// user's row went when the user was deleted.
type erasureRow struct{ Versions }

func (r *erasureRow) versions() *Versions { return &r.Versions }

func (r *erasureRow) fold(domain.Event, time.Time) {}

func (r *erasureRow) live() bool { return false }

func (r *erasureRow) indexes() []Index { return nil }

func (r *erasureRow) takesAlong() (Key, bool) { return Key{}, false }
