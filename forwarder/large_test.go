package forwarder_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// manyMappings gives a client mappings that all listen on the host, on ports from first.
func (w *world) manyMappings(c client, n int, name, host string, first int) {
	w.t.Helper()
	for i := range n {
		w.plane.do(w.t, domain.CreateMapping{ID: 50_000 + int64(i), UserID: w.user, SourceClientID: c.id, TargetClientID: c.id,
			Protocol: domain.ProtocolTCP, Parts: domain.Parts{Name: name,
				Origin:  domain.Origin{LocalHost: host, LocalPort: first + i},
				Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 1}}})
	}
}

// A configuration that is larger than a control message may be reaches the agent in
// parts. 2,600 names of 400 bytes once ended each session right after its login.
func TestConfigurationLargerThanAMessage(t *testing.T) {
	w := newWorld(t, "tls")
	log := new(lockedBuffer)
	w.log = slog.New(slog.NewTextHandler(log, nil))
	c := w.client(w.user)
	w.manyMappings(c, 2_600, strings.Repeat("𝌆", 100), "192.0.2.1", 1_000) // nobody can listen there: no sockets are needed
	w.agent(c)
	w.settled(c)
	first := w.session(c)
	w.plane.do(t, domain.SetMappingEnabled{ID: 50_000})
	m := w.mapping(c, c, greet(t, "beside the others"))
	w.listening(m)
	w.settled(c)
	if now := w.session(c); now.Session != first.Session {
		t.Errorf("the agent has session %s, had %s:\n%s", now.Session, first.Session, log)
	}
	if got := w.metric("tunnox_mappings_active"); got != 2_600 {
		t.Errorf("%v mappings are active, want 2600", got)
	}
}

// So does an acknowledgement with 14,000 listeners that could not be opened.
func TestAcknowledgementLargerThanAMessage(t *testing.T) {
	w := newWorld(t, "tls")
	c := w.client(w.user)
	const n = 14_000
	w.manyMappings(c, n, "", "192.0.2.1", 1_000)
	w.agent(c)
	w.settled(c)
	if got := w.metric("tunnox_listener_failures_total"); got != n {
		t.Errorf("%v listeners were reported as not opened, want %d", got, n)
	}
}

// lockedBuffer is a buffer that several may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
