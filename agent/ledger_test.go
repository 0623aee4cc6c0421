package agent

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/logproof"
	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// ledger is a server's log, whose keeper may lie.
type ledger struct {
	t      *testing.T
	signer note.Signer
	public string

	mu      sync.Mutex
	records [][]byte
	stored  []tlog.Hash
	newest  map[int64]*wirepb.KeyProof // by client, without proof
	asked   int                        // questions
	held    bool                       // what is announced now is not put under a checkpoint
	code    wire.Code                  // every question is refused with it
	lie     func(*wirepb.KeyProofs)    // changes answers
}

func newLedger(t *testing.T) *ledger {
	secret, public, err := note.GenerateKey(rand.Reader, "log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{t: t, signer: signer, public: public, newest: map[int64]*wirepb.KeyProof{}}
	l.append([]byte("the beginning"))
	return l
}

// fork gives another log of the same keeper that begins with all that this one has.
func (l *ledger) fork() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	other := &ledger{t: l.t, signer: l.signer, public: l.public, records: slices.Clone(l.records), stored: slices.Clone(l.stored), newest: map[int64]*wirepb.KeyProof{}}
	for client, key := range l.newest {
		other.newest[client] = &wirepb.KeyProof{ClientId: client, Number: key.Number, Position: key.Position}
	}
	return other
}

// set changes how the keeper is.
func (l *ledger) set(change func(*ledger)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (l *ledger) append(record []byte) (position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appendLocked(record)
}

func (l *ledger) appendLocked(record []byte) (position int64) {
	hashes, err := tlog.StoredHashes(int64(len(l.records)), record, l.reader())
	if err != nil {
		l.t.Error(err)
	}
	l.records, l.stored = append(l.records, record), append(l.stored, hashes...)
	return int64(len(l.records))
}

func (l *ledger) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		list := make([]tlog.Hash, len(at))
		for i, n := range at {
			list[i] = l.stored[n]
		}
		return list, nil
	})
}

func keyRecord(client, number int64, key []byte) []byte {
	data, _ := json.Marshal(map[string]any{"static_key": key, "number": number})
	return fmt.Appendf(nil, "tunnox-record 1\nclient-%d\n%d\n7\nclient_key_announced\n1\nid\n1\n%d\n2\n%s{}", client, number+1, len(data), data)
}

// announce appends a client's key.
func (l *ledger) announce(client int64, key seal.PublicKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announceLocked(client, key[:])
}

func (l *ledger) announceLocked(client int64, key []byte) {
	number := int64(1)
	if was := l.newest[client]; was != nil {
		if slices.Equal(l.records[was.Position-1], keyRecord(client, was.Number, key)) {
			return // the present one
		}
		number = was.Number + 1
	}
	at := l.appendLocked(keyRecord(client, number, key))
	l.newest[client] = &wirepb.KeyProof{ClientId: client, Number: number, Position: at}
}

// answer answers a client's command.
func (l *ledger) answer(client int64, c *wirepb.Command) *wirepb.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &wirepb.Result{Id: c.GetId()}
	switch wish := c.GetCommand().(type) {
	case *wirepb.Command_AnnounceKey:
		if r.Code = string(l.code); r.Code == "" && !l.held {
			l.announceLocked(client, wish.AnnounceKey.GetStaticKey())
		}
	case *wirepb.Command_ProveKeys:
		l.asked++
		if r.Code = string(l.code); r.Code == "" {
			r.Proofs = l.proofs(wish.ProveKeys)
		}
	default:
		r.Code = string(wire.Malformed)
	}
	return r
}

func (l *ledger) proofs(q *wirepb.ProveKeys) *wirepb.KeyProofs {
	size := int64(len(l.records))
	root, err := tlog.TreeHash(size, l.reader())
	if err != nil {
		l.t.Error(err)
	}
	signed, err := note.Sign(&note.Note{Text: logproof.Checkpoint{Origin: "log", Size: size, Root: root, At: time.Unix(1, 0)}.Text()}, l.signer)
	if err != nil {
		l.t.Error(err)
	}
	a := &wirepb.KeyProofs{Signer: l.public, Checkpoint: string(signed), Grown: l.growth(q.GetKnown(), size), Between: l.growth(min(q.GetKnown(), q.GetSeen()), max(q.GetKnown(), q.GetSeen()))}
	for _, wanted := range q.GetKeys() {
		if key := l.newest[wanted.GetClientId()]; key != nil {
			a.Keys = append(a.Keys, l.prove(key.ClientId, key.Number, key.Position))
		}
	}
	if l.lie != nil {
		l.lie(a)
	}
	return a
}

// prove proves the key at a position.
func (l *ledger) prove(client, number, position int64) *wirepb.KeyProof {
	path, err := tlog.ProveRecord(int64(len(l.records)), position-1, l.reader())
	if err != nil {
		l.t.Error(err)
	}
	return &wirepb.KeyProof{ClientId: client, Number: number, Position: position, Record: l.records[position-1], Path: flat(path)}
}

func (l *ledger) growth(from, to int64) []byte {
	if from < 1 || from >= to || to > int64(len(l.records)) {
		return nil
	}
	path, err := tlog.ProveTree(to, from, l.reader())
	if err != nil {
		l.t.Error(err)
	}
	return flat(path)
}

func flat(path []tlog.Hash) (b []byte) {
	for _, h := range path {
		b = append(b, h[:]...)
	}
	return b
}

// serve answers an agent's commands from the log, from now on. Acks are passed on.
func (s *script) serve(client int64, l *ledger) (send func(*wirepb.Control), acks <-chan *wirepb.Ack) {
	var mu sync.Mutex
	out := make(chan *wirepb.Ack, 10)
	control := s.control
	send = func(m *wirepb.Control) {
		mu.Lock()
		defer mu.Unlock()
		_ = wire.WriteControl(control, m)
	}
	done := make(chan struct{})
	s.t.Cleanup(func() { s.link.Close(); <-done })
	go func() {
		defer close(done)
		control.SetReadDeadline(time.Time{})
		for {
			m, err := wire.ReadControl(control, wire.MaxControl)
			if err != nil {
				return
			}
			switch {
			case m.GetCommand() != nil:
				send(&wirepb.Control{Message: &wirepb.Control_Result{Result: l.answer(client, m.GetCommand())}})
			case m.GetAck() != nil:
				out <- m.GetAck()
			case m.GetPing() != nil:
				send(&wirepb.Control{Message: &wirepb.Control_Pong{Pong: &wirepb.Pong{Id: m.GetPing().GetId()}}})
			}
		}
	}()
	return send, out
}
