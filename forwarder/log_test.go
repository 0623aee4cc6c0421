package forwarder_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// logged collects what a forwarder logs.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// Strangers and agents do not decide how much the forwarder logs.
func TestOthersCannotFillTheLog(t *testing.T) {
	var log logged
	w := newWorld(t, "memory")
	w.current().stop()
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	w.start()
	c := w.client(w.user)
	for range 150 {
		h := w.knock(t)
		if r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId = -1 }); r == nil || r.Code != wire.Malformed {
			t.Fatalf("got %v", r)
		}
		h.link.Close()
	}
	if n := log.count("login failed"); n < 1 || n > 100 {
		t.Errorf("%d lines for 150 strangers", n)
	}
	h := w.knock(t)
	if r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId = c.id }); r != nil {
		t.Fatal(r)
	}
	ack := &wirepb.Ack{Version: 1}
	for range 500 {
		ack.Failures = append(ack.Failures, &wirepb.Failure{MappingId: 1, Code: "c", Message: strings.Repeat("m", 1000)})
	}
	before := w.metric("tunnox_listener_failures_total")
	if err := wire.WriteControl(h.control, &wirepb.Control{Message: &wirepb.Control_Ack{Ack: ack}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all failures are counted", func() bool { return w.metric("tunnox_listener_failures_total") == before+500 })
	if n := log.count("could not open a listener"); n < 1 || n > 30 {
		t.Errorf("%d lines for 500 failures", n)
	}
	if log.count(strings.Repeat("m", 300)) > 0 {
		t.Error("messages are logged at any length")
	}
}
