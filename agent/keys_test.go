package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// text is a log that a test reads.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *text) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// proven is a middle between two agents whose owners have told each other nothing: each
// has the keys of the other from a log.
type proven struct {
	*middle
	dir      string
	sourceAt *ledger
	targetAt *ledger
	log      *text // of both agents
	who      map[int64]wire.Credential
}

func newProven(t *testing.T, sourceAt, targetAt *ledger) *proven {
	t.Helper()
	p := &proven{middle: &middle{t: t, service: newCounted(t)}, dir: t.TempDir(), sourceAt: sourceAt, targetAt: targetAt, log: &text{}, who: map[int64]wire.Credential{}}
	p.target = p.begin(targetClient, targetAt)
	p.source = p.begin(sourceClient, sourceAt)
	return p
}

// keyFile is where a client's agent has its key.
func (p *proven) keyFile(client int64) string {
	return filepath.Join(p.dir, map[int64]string{sourceClient: "source.key", targetClient: "target.key"}[client])
}

// begin starts the agent of a client at a server with this log. The source agent is told
// to listen.
func (p *proven) begin(client int64, at *ledger, change ...func(*Config)) *script {
	p.t.Helper()
	keys, err := OpenKeyring(p.keyFile(client))
	if err != nil {
		p.t.Fatal(err)
	}
	s := newScript(p.t, append([]func(*Config){func(cfg *Config) {
		cfg.Identity.ClientID, cfg.Sessions = client, 1
		if who, ok := p.who[client]; ok {
			cfg.Identity.Credential = who
		}
		p.who[client] = cfg.Identity.Credential
		cfg.Sealing = &Sealing{Keys: keys, Log: p.keyFile(client) + ".log"}
		cfg.Logger = slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}}, change...)...)
	send, acks := s.serve(client, at)
	if client != sourceClient {
		return s
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.listen = free.Addr().String()
	free.Close()
	address := netip.MustParseAddrPort(p.listen)
	send(&wirepb.Control{Message: &wirepb.Control_Assign{Assign: &wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{{MappingId: 7, Protocol: "tcp",
		Host: address.Addr().String(), Port: uint32(address.Port()), Version: 3, TargetClient: targetClient, Options: `{"encryption":"e2e"}`}}}}})
	select {
	case ack := <-acks:
		if len(ack.GetFailures()) > 0 {
			p.t.Fatal(ack)
		}
	case <-time.After(pace.Guard):
		p.t.Fatal("no ack came")
	}
	return s
}

// announced waits until both logs have the keys of both agents.
func (p *proven) announced() {
	p.t.Helper()
	eventually(p.t, "both keys are announced and proven", func() bool {
		_, _, source := p.source.agent.seals.proofs.key(sourceClient)
		_, _, target := p.target.agent.seals.proofs.key(targetClient)
		return source && target
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(pace.Guard); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// echoes sends bytes through a new connection and takes them back; first handles what
// comes before the stream that works.
func (p *proven) echoes(refused ...wire.Code) {
	p.t.Helper()
	conn := p.dial()
	var from, to transport.Stream
	for _, want := range append(refused, "") {
		var code wire.Code
		if from, to, code = p.next(); code != want {
			p.t.Fatalf("the target agent answers %q, want %q\n%v", code, want, p.log)
		}
	}
	var carrying sync.WaitGroup
	carrying.Go(func() { p.carry(from, to) })
	sent := make([]byte, 50_000)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
		p.t.Fatalf("%d bytes came back, %v", len(got), err)
	}
	carrying.Wait()
	<-p.service.ends
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wire.Len() < 2*len(sent) || bytes.Contains(p.wire.Bytes(), sent[:8]) {
		p.t.Errorf("the forwarder carried %d bytes, or plaintext", p.wire.Len())
	}
	p.wire.Reset()
}

// refuses makes a connection that must end with an error at the program and reach no
// service; told is what the source agent's owner finds in the log. before are the answers
// that the target agent gives.
func (p *proven) refuses(told string, before ...wire.Code) {
	p.t.Helper()
	dials := p.service.dials()
	conn, err := net.Dial("tcp", p.listen)
	if isReset(err) { // it was refused before Dial returned
		conn, _ = net.Pipe()
		conn.Close()
	} else if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(pace.Guard))
	for _, want := range before {
		if _, _, code := p.next(); code != want {
			p.t.Fatalf("the target agent answers %q, want %q\n%v", code, want, p.log)
		}
	}
	if got, read := io.ReadAll(conn); !isReset(cmp.Or(err, read)) || len(got) > 0 {
		p.t.Errorf("the program got %d bytes and %v, want a reset", len(got), err)
	}
	if p.service.dials() != dials {
		p.t.Error("the service was dialled")
	}
	eventually(p.t, "the log says "+told, func() bool { return strings.Contains(p.log.String(), told) })
}

func isReset(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op && strings.Contains(err.Error(), "reset")
}

// Agents announce their keys and prove each other's without their owners.
func TestAgentsKnowEachOtherFromTheLog(t *testing.T) {
	at := newLedger(t)
	p := newProven(t, at, at)
	p.announced()
	p.echoes()
	at.append([]byte("the log grows"))
	p.echoes()
	var asked int
	at.set(func(l *ledger) { asked = l.asked })
	for range 5 { // nothing is asked for a peer that is known
		p.echoes()
	}
	at.set(func(l *ledger) {
		if l.asked != asked {
			t.Errorf("%d questions were put about what is known", l.asked-asked)
		}
		if l.newest[sourceClient].Number != 1 || l.newest[targetClient].Number != 1 {
			t.Error("a key was announced more than once")
		}
	})
	here, err := p.source.agent.Keys(t.Context(), 0)
	if err != nil || len(here.Peers) != 1 {
		t.Fatalf("the source agent knows %+v, %v", here, err)
	}
	there, err := p.target.agent.Keys(t.Context(), 0)
	if err != nil || len(there.Peers) != 1 || there.Peers[0].Phrase != here.Peers[0].Phrase || here.Number != 1 {
		t.Errorf("the owners compare %+v and %+v, %v", here, there, err)
	}
	if key, err := seal.LoadKey(p.keyFile(targetClient)); err != nil || here.Peers[0].Key != key.Public().String() || here.Peers[0].ClientID != targetClient {
		t.Errorf("the source agent believes in %+v, %v", here.Peers, err)
	}
}

// The present key counts until the next one is proven, and from then on only that.
func TestARotatedKeyCountsWhenItIsProven(t *testing.T) {
	at := newLedger(t)
	p := newProven(t, at, at)
	p.announced()
	p.echoes()
	first := p.target.agent.seals.keys.Public()
	for _, client := range []int64{targetClient, sourceClient} {
		turning := map[int64]*script{targetClient: p.target, sourceClient: p.source}[client].agent
		before := turning.seals.keys.Public()
		at.set(func(l *ledger) { l.held = true })
		turned := make(chan error, 1)
		var next seal.PublicKey
		go func() {
			var err error
			next, err = turning.RotateKey(t.Context())
			turned <- err
		}()
		eventually(t, "there is a next key", func() bool { return turning.seals.keys.wanted() != before })
		p.echoes()
		if turning.seals.keys.Public() != before {
			t.Fatal("a key counts that is not proven")
		}
		at.set(func(l *ledger) { l.held = false })
		if err := <-turned; err != nil {
			t.Fatal(err)
		}
		if next == before || turning.seals.keys.Public() != next {
			t.Fatal("the next key is not the present one")
		}
		if client == targetClient {
			// The source agent goes on after the last handshake, which the new key knows nothing
			// of; then it finds that the key is another, and asks for it.
			p.echoes(wire.EncryptionFailed, wire.EncryptionFailed)
		} else {
			p.echoes()
		}
		p.echoes()
		if key, err := seal.LoadKey(p.keyFile(client)); err != nil || key.Public() != next {
			t.Errorf("the file of client %d has another key, %v", client, err)
		}
		if _, err := os.Stat(p.keyFile(client) + ".next"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the next key's file is still there: %v", err)
		}
	}
	if p.target.agent.seals.keys.has(first) {
		t.Error("a key that was given up is still one")
	}
}

// A rotation that the process did not live to see goes on at the next start.
func TestARotationOutlivesItsProcess(t *testing.T) {
	at := newLedger(t)
	file := filepath.Join(t.TempDir(), "agent.key")
	keys, err := OpenKeyring(file)
	if err != nil {
		t.Fatal(err)
	}
	before := keys.Public()
	next, err := keys.rotate()
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeyring(file)
	if err != nil {
		t.Fatal(err)
	}
	if again.Public() != before || again.wanted() != next {
		t.Fatal("the next key was forgotten")
	}
	s := newScript(t, func(cfg *Config) { cfg.Sealing = &Sealing{Keys: again} })
	s.serve(sourceClient, at)
	eventually(t, "the next key is the present one", func() bool { return again.Public() == next })
}

// A server that lies about keys is found out: an error at both ends, and no byte to or
// from the service.
func TestAServerThatLiesAboutKeys(t *testing.T) {
	stranger, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	public := stranger.Public()
	t.Run("an old key", func(t *testing.T) {
		at := newLedger(t)
		p := newProven(t, at, at)
		p.announced()
		var first *wirepb.KeyProof
		at.set(func(l *ledger) { first = l.newest[targetClient] })
		if _, err := p.target.agent.RotateKey(t.Context()); err != nil {
			t.Fatal(err)
		}
		old := func(l *ledger) {
			l.lie = func(a *wirepb.KeyProofs) {
				for i, key := range a.Keys {
					if key.ClientId == targetClient {
						a.Keys[i] = l.prove(targetClient, first.Number, first.Position)
					}
				}
			}
		}
		at.set(old)
		p.refuses("encryption_failed", wire.EncryptionFailed) // its proof is right, but nobody has that key any more
		at.set(func(l *ledger) { l.lie = nil })
		eventually(t, "the newest key is asked for", func() bool {
			_, err := p.source.agent.seals.proofs.refresh(t.Context(), 7, targetClient)
			key, _, _ := p.source.agent.seals.proofs.key(targetClient)
			return err == nil && key == p.target.agent.seals.keys.Public()
		})
		p.echoes()
		at.set(old)
		if _, err := p.source.agent.seals.proofs.refresh(t.Context(), 7, targetClient); err == nil || !strings.Contains(err.Error(), "old_key") {
			t.Errorf("an old key is offered where a newer one is known: %v", err)
		}
		p.echoes() // what was proven is known
	})
	t.Run("a forged proof", func(t *testing.T) {
		at := newLedger(t)
		p := newProven(t, at, at)
		p.announced()
		at.set(func(l *ledger) {
			l.lie = func(a *wirepb.KeyProofs) {
				for _, key := range a.Keys {
					if key.ClientId == targetClient {
						key.Record = keyRecord(targetClient, 1, public[:])
					}
				}
			}
		})
		p.refuses("forged_proof")
	})
	t.Run("the key of somebody else in the log of one", func(t *testing.T) {
		at := newLedger(t)
		other := at.fork()
		other.announce(targetClient, public)
		p := newProven(t, other, at)
		eventually(t, "the keys are announced", func() bool {
			_, _, source := p.source.agent.seals.proofs.key(sourceClient)
			_, _, target := p.target.agent.seals.proofs.key(targetClient)
			return source && target
		})
		p.refuses("encryption_failed", wire.EncryptionFailed)
	})
	t.Run("the key of somebody else in the log of all", func(t *testing.T) {
		at := newLedger(t)
		p := newProven(t, at, at)
		p.announced()
		at.announce(targetClient, public)
		p.refuses("encryption_failed", wire.EncryptionFailed)
		// The agent in whose name it was announced finds it, and takes its name back.
		p.target.agent.seals.announce()
		eventually(t, "the owner is told", func() bool { return strings.Contains(p.log.String(), "somebody else has announced a key in its name") })
		eventually(t, "the agent's own key is the newest", func() bool {
			_, number, _ := p.target.agent.seals.proofs.key(targetClient)
			return number == 3
		})
	})
	t.Run("a split log", func(t *testing.T) {
		for name, more := range map[string]int{"the source sees more": 2, "the target sees more": -2, "both see as much": 0} {
			t.Run(name, func(t *testing.T) {
				at := newLedger(t)
				dir := t.TempDir()
				for _, client := range []int64{sourceClient, targetClient} {
					k, err := OpenKeyring(filepath.Join(dir, map[int64]string{sourceClient: "source.key", targetClient: "target.key"}[client]))
					if err != nil {
						t.Fatal(err)
					}
					at.announce(client, k.Public())
				}
				// Both logs have both keys, so that the handshake itself is right.
				other := at.fork()
				at.append([]byte("what some are shown"))
				other.append([]byte("what others are shown"))
				for range more {
					other.append([]byte("and more"))
				}
				for range -more {
					at.append([]byte("and more"))
				}
				p := &proven{middle: &middle{t: t, service: newCounted(t)}, dir: dir, sourceAt: other, targetAt: at, log: &text{}, who: map[int64]wire.Credential{}}
				p.target = p.begin(targetClient, at)
				p.source = p.begin(sourceClient, other)
				p.announced()
				p.refuses("different logs", wire.KeyRefused)
				if got := p.target.agent.Status().Distrust; !strings.Contains(got, "different_log") {
					t.Errorf("the status says %q", got)
				}
			})
		}
	})
	t.Run("a split log that only the source can see", func(t *testing.T) {
		at := newLedger(t)
		p := newProven(t, at, at)
		p.announced()
		p.source.stop() // its next question would be to a log that has forked, and spoil the file
		p.target.stop()
		other := at.fork()
		at.append([]byte("what some are shown"))
		other.append([]byte("what others are shown"))
		source := p.source.agent.seals.keys.Public()
		p.target = p.begin(targetClient, at, func(cfg *Config) { cfg.Sealing.Pinned = PinnedKeys{sourceClient: source} })
		p.source = p.begin(sourceClient, other)
		eventually(t, "the target has seen its log", func() bool { return p.target.agent.seals.proofs.now().Size() == int64(len(at.records)) })
		for range 3 { // nothing goes on after a handshake that was not right
			conn := p.dial()
			from, to, code := p.next()
			if code != "" {
				t.Fatal(code)
			}
			var carrying sync.WaitGroup
			carrying.Go(func() { p.carry(from, to) })
			_, _ = conn.Write([]byte("a secret"))
			if got, err := io.ReadAll(conn); !isReset(err) || len(got) > 0 {
				t.Errorf("the program got %d bytes and %v, want a reset", len(got), err)
			}
			carrying.Wait()
			if err := <-p.service.ends; err == nil {
				t.Error("the service took it for an end")
			}
		}
		if p.service.got.Len() > 0 {
			t.Errorf("the service got %q", p.service.got.String())
		}
	})
	t.Run("a log that lost records", func(t *testing.T) {
		at := newLedger(t)
		before := at.fork()
		p := newProven(t, at, at)
		p.announced()
		p.echoes()
		s := p.begin(sourceClient, before) // it knows more than this server has
		p.source = s
		eventually(t, "the agent distrusts the log", func() bool { return strings.Contains(s.agent.Status().Distrust, "smaller_log") })
		p.echoes() // the keys that were proven are known
	})
}

// Without proofs no connection is made, and the refusal says what to do.
func TestWithoutProofsNothingIsCarried(t *testing.T) {
	at := newLedger(t)
	at.set(func(l *ledger) { l.code = wire.Malformed }) // as an older forwarder answers
	p := newProven(t, at, at)
	p.refuses("--peer-key 600000002=KEY")
	at.set(func(l *ledger) { l.code = "" })
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	// A key that the owner has named goes before all that a log proves.
	p.source = p.begin(sourceClient, at, func(cfg *Config) { cfg.Sealing.Pinned = PinnedKeys{targetClient: key.Public()} })
	p.refuses("encryption_failed", wire.EncryptionFailed)
}

// A client that shows a key which the log does not have as its newest is not let in.
func TestAKeyThatIsNotTheNewestIsRefused(t *testing.T) {
	at := newLedger(t)
	p := newProven(t, at, at)
	p.announced()
	other, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	for _, client := range []int64{sourceClient, 600000077} {
		err := p.target.agent.seals.peers.Trust(ctx, 7, client, other.Public())
		if wire.CodeOf(err) != wire.KeyRefused {
			t.Errorf("client %d shows a stranger's key: %v", client, err)
		}
	}
}
