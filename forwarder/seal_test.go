package forwarder_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// keyring gives agents keys and tells each whose they are.
type keyring struct {
	mu   sync.Mutex
	keys map[int64]seal.PublicKey
}

func newKeyring() *keyring { return &keyring{keys: map[int64]seal.PublicKey{}} }

// with is an agent of a client that can encrypt from end to end.
func (k *keyring) with(t testing.TB, c client) func(*agent.Config) {
	t.Helper()
	own, err := agent.OpenKeyring("")
	if err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[c.id] = own.Public()
	return func(cfg *agent.Config) { cfg.Sealing = &agent.Sealing{Keys: own, Peers: k} }
}

func (k *keyring) KeyOf(_ context.Context, _, client int64) (seal.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.keys[client]; key.Valid() {
		return key, nil
	}
	return seal.PublicKey{}, wire.KeyRefused
}

func (k *keyring) Trust(ctx context.Context, mapping, client int64, key seal.PublicKey) error {
	if is, err := k.KeyOf(ctx, mapping, client); err != nil || is != key {
		return wire.KeyRefused
	}
	return nil
}

// sealed makes a mapping's agents encrypt from one to the other.
func (w *world) sealed(m mapping) {
	w.t.Helper()
	w.plane.do(w.t, domain.ChangeMapping{ID: m.id, Patch: domain.PatchOf(domain.Options{Encryption: domain.EncryptionE2E})})
}

// carriesWhole sends bytes both ways through a mapping, each direction ended by itself.
func carriesWhole(t *testing.T, address string) {
	t.Helper()
	conn := connect(t, address)
	defer conn.Close()
	text := make([]byte, 1<<20)
	_, _ = rand.Read(text)
	go func() {
		_, _ = conn.Write(text)
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// Connections that are encrypted from agent to agent, of every protocol that has agents
// at both ends, through one forwarder.
func TestEncryptionFromEndToEnd(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		keys := newKeyring()
		source, target := w.client(w.user), w.client(w.user)
		w.agent(target, keys.with(t, target))
		w.agent(source, keys.with(t, source))

		m := w.mapping(source, target, echo(t))
		w.sealed(m)
		w.listening(m)
		carriesWhole(t, m.address)

		service := programs.EchoUDP(t, "127.0.0.1:0")
		u := w.udpMapping(source, target, service.LocalAddr().String(), domain.Options{Encryption: domain.EncryptionE2E})
		for _, size := range []int{0, 1, 1472, 16400, 65507} {
			if err := askOnce(w.flow(u.address), make([]byte, size), pace.Guard); err != nil {
				t.Errorf("a datagram of %d bytes: %v", size, err)
			}
		}

		s := w.socksMapping(source, target)
		w.sealed(s)
		w.listening(s)
		host, port := split(t, greeter(t, "welcome "))
		conn, reply := asks(t, s.address, host, port)
		if reply != 0 {
			t.Fatalf("SOCKS reply %d", reply)
		}
		if err := roundTripOf(conn, "welcome "); err != nil {
			t.Error(err)
		}
	})
}

func roundTripOf(conn net.Conn, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != want {
		return errors.New("got " + string(got))
	}
	return nil
}

// The same over two forwarders.
func TestEncryptionFromEndToEndOverTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		keys := newKeyring()
		source, target := c.client(c.user), c.client(c.user)
		c.agent(source, c.at("node-00a"), keys.with(t, source))
		c.agent(target, c.at("node-00b"), keys.with(t, target))
		m := c.mapping(source, target, echo(t))
		c.sealed(m)
		c.listening(m)
		carriesWhole(t, m.address)
	})
}

// What a mapping demands is refused where an agent cannot do it, and never done with
// less: an agent of the last release at either end, or a source agent that does not ask.
func TestEncryptionIsNeverDoneWithLess(t *testing.T) {
	w := newWorld(t, "tls")
	keys := newKeyring()
	able, old := w.client(w.user), w.client(w.user)
	w.agent(able, keys.with(t, able))
	w.agent(old)

	service := echo(t)
	toOld := w.mapping(able, old, service)
	w.sealed(toOld)
	w.listening(toOld)
	if got, err := heard(toOld.address); !isReset(err) {
		t.Errorf("a connection to an agent that cannot encrypt got %q and %v", got, err)
	}
	fromOld := w.mapping(old, able, service)
	w.listening(fromOld)
	carriesWhole(t, fromOld.address)
	w.sealed(fromOld)
	w.closed(fromOld) // the agent is not told to listen any more

	for _, tt := range []struct {
		name   string
		source client
		open   *wirepb.Open
		want   wire.Code
		word   string
	}{
		{"no first message", old, &wirepb.Open{MappingId: fromOld.id}, wire.EncryptionRequired, ""},
		{"not a message that holds", old, &wirepb.Open{MappingId: fromOld.id, Seal: []byte("x")}, wire.EncryptionFailed, ""},
		{"a target that cannot", able, &wirepb.Open{MappingId: toOld.id, Seal: []byte("x")}, wire.EncryptionUnavailable, "encryption to transport"},
	} {
		h := w.knock(t)
		if r := h.hello(t, tt.source.credential, func(m *wirepb.Hello) { m.ClientId, m.Instance = tt.source.id, "opens" }); r != nil {
			t.Fatal(r)
		}
		var err error
		eventually(t, "the mapping is known", func() bool {
			err = h.openWith(t, tt.open)
			return !errors.Is(err, wire.NoSuchMapping)
		})
		if wire.CodeOf(err) != tt.want || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}
