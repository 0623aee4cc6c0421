package forwarder

import (
	"errors"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/wire"
)

// One identity must not keep a node busy with logins, nor another identity out.
func TestLoginsOfOneIdentityAreBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	d := newDoorkeeper(Limits{RegistrationsAll: 1}, func() time.Time { return now })
	taken := 0
	for range 10 * 285 { // ten seconds of what was possible
		if d.again(1) == nil {
			taken++
		}
		now = now.Add(time.Second / 285)
	}
	if want := loginsAtOnce + 10*loginsPerSecond; taken < want-1 || taken > want+1 {
		t.Errorf("%d of 2850 logins in ten seconds, want %d", taken, want)
	}
	if r := d.again(1); r == nil || !errors.Is(r, wire.TooMany) || r.RetryAfter <= 0 {
		t.Errorf("one too many is answered with %v", r)
	}
	if r := d.again(2); r != nil {
		t.Errorf("another identity is refused: %v", r)
	}
	now = now.Add(time.Minute)
	for i := range loginsAtOnce {
		if r := d.again(1); r != nil {
			t.Fatalf("login %d after a quiet minute: %v", i, r)
		}
	}
	for id := range int64(maxLoginsKept + 10) {
		d.again(id + 10)
	}
	if n := len(d.clients); n > maxLoginsKept {
		t.Errorf("%d identities are kept", n)
	}
}
