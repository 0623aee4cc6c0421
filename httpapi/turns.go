package httpapi

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// standing is what is known of whoever wants a password looked at, before it was.
type standing int

const (
	asStranger standing = iota // a login at an account from an address that never entered it
	asCaller                   // somebody with a key or token
	asKnown                    // a login at an account from an address that has entered it
	standings
)

// mostWaiting is how many of each standing wait for a turn at most. A turn takes
// some 40 ms, so that strangers who get one wait less than a second for it, and
// more of them than there are turns do not make others wait at all.
var mostWaiting = [standings]int{asStranger: 16, asCaller: 64, asKnown: 64}

// errBusy: there are so many who wait that the next is sent away.
var errBusy = errors.New("too many passwords are being looked at")

// turns gives few at a time something dear to do. Who is known comes first; callers
// and strangers take turns with each other.
type turns struct {
	mu    sync.Mutex
	free  int                          // guarded by mu
	lines [standings][]chan<- struct{} // who waits, the first first; guarded by mu
	after standing                     // of callers and strangers, who had a turn last; guarded by mu
}

// take waits for a turn, which ends with done. With errBusy, or when ctx ends
// first, there is none.
func (t *turns) take(ctx context.Context, who standing) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return t.give, nil
	}
	if len(t.lines[who]) >= mostWaiting[who] {
		t.mu.Unlock()
		return nil, errBusy
	}
	mine := make(chan struct{}, 1)
	t.lines[who] = append(t.lines[who], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return t.give, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.lines[who], chan<- struct{}(mine)); i >= 0 {
		t.lines[who] = slices.Delete(t.lines[who], i, i+1)
	} else {
		t.next() // it came at the same moment
	}
	return nil, ctx.Err()
}

// full tells, before anything is counted or read for it, that one more would be
// sent away.
func (t *turns) full(who standing) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.free == 0 && len(t.lines[who]) >= mostWaiting[who]
}

func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

// next gives a turn that has ended to who is next. The lock is held.
func (t *turns) next() {
	order := [...]standing{asKnown, asCaller, asStranger}
	if t.after == asCaller {
		order = [...]standing{asKnown, asStranger, asCaller}
	}
	for _, who := range order {
		line := t.lines[who]
		if len(line) == 0 {
			continue
		}
		if who != asKnown {
			t.after = who
		}
		line[0] <- struct{}{}
		t.lines[who] = slices.Delete(line, 0, 1)
		return
	}
	t.free++
}
