package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/logproof"
	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	proofTimeout = 6 * time.Second        // of one question; a forwarder waits 10 s for the answer to an Open
	proofPause   = 250 * time.Millisecond // before a question is put again that nobody could answer
	proofEvery   = time.Second            // one client's key is asked for no more often: anybody may show a wrong one
	maxAsked     = 4096                   // clients of which it is remembered when they were asked for
)

// errNoProofs says that the server proves no keys: it is older than that.
var errNoProofs = errors.New("the server proves no keys of agents: it is older than this agent")

// proofs is what the agent knows of its server's log, and how it asks for more. Nothing
// that a server says is taken over without its proof. Its methods may be called
// concurrently.
type proofs struct {
	a    *Agent
	file string // "": nowhere
	keys *Keyring

	turn chan struct{} // holds one while a question is under way: each builds on the one before

	mu      sync.Mutex
	known   logproof.Known      // guarded by mu
	latest  logproof.Seen       // guarded by mu; of known, whose signature is not verified at each connection
	flights map[int64]*flight   // guarded by mu; by client
	asked   map[int64]time.Time // guarded by mu; when a client's key was asked for, or will be
	fault   error               // guarded by mu; what the server has shown that is wrong
}

// flight is a question about one client's key, which several may wait for.
type flight struct {
	done chan struct{}
	err  error // set before done is closed
}

func newProofs(a *Agent, file string, keys *Keyring) *proofs {
	return &proofs{a: a, file: file, keys: keys, turn: make(chan struct{}, 1),
		flights: map[int64]*flight{}, asked: map[int64]time.Time{}}
}

// load reads what an earlier process has learned. What another identity has learned, at
// another server perhaps, counts for nothing.
func (p *proofs) load(credential wire.Credential) error {
	sum := sha256.Sum256(credential.PublicKey())
	of := hex.EncodeToString(sum[:8])
	known := logproof.Known{}
	if p.file != "" {
		var err error
		if known, err = logproof.Load(p.file); err != nil {
			return err
		}
	}
	if known.Of != of {
		known = logproof.Known{Of: of}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.latest = known, known.Seen()
	return nil
}

// now is what is known.
func (p *proofs) now() logproof.Known {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known
}

// key gives the newest key of a client that was proven.
func (p *proofs) key(client int64) (key seal.PublicKey, number int64, ok bool) {
	found, ok := p.now().Keys[client]
	if !ok {
		return seal.PublicKey{}, 0, false
	}
	key, err := seal.PublicKeyOf(found.Key)
	return key, found.Number, err == nil // a weak key proves nothing, whoever announced it
}

// refresh asks for the newest key of the client at the other end of a mapping, or with
// mapping 0 for this agent's own. Questions about one client that come together are one.
// joined says that the question may have been put before refresh was called.
func (p *proofs) refresh(ctx context.Context, mapping, client int64) (joined bool, err error) {
	p.mu.Lock()
	f, joined := p.flights[client]
	if !joined {
		f = &flight{done: make(chan struct{})}
		p.flights[client] = f
		pause := time.Duration(0)
		if mapping != 0 { // its own key nobody can have it ask for
			pause = time.Until(p.asked[client].Add(proofEvery))
		}
		if len(p.asked) >= maxAsked {
			clear(p.asked)
		}
		p.asked[client] = time.Now().Add(max(pause, 0))
		p.a.start(func() {
			defer p.landed(client, f)
			if !wait.For(p.a.ctx, pause) {
				f.err = p.a.ctx.Err()
				return
			}
			f.err = p.ask(p.a.ctx, mapping, client)
		})
	}
	p.mu.Unlock()
	select {
	case <-f.done:
		return joined, f.err
	case <-ctx.Done():
		return joined, ctx.Err()
	}
}

func (p *proofs) landed(client int64, f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flights, client)
	close(f.done)
}

// ask puts one question and takes the answer over.
func (p *proofs) ask(ctx context.Context, mapping, client int64) error {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.give()
	own := p.a.identityID()
	question := &wirepb.ProveKeys{Known: p.now().Size()}
	if own != 0 { // its own key comes along: the owner should hear of one that somebody else announced
		question.Keys = append(question.Keys, &wirepb.KeyOf{ClientId: own})
	}
	if client != own {
		question.Keys = append(question.Keys, &wirepb.KeyOf{MappingId: mapping, ClientId: client})
	}
	answer, err := p.question(ctx, question)
	if err != nil {
		return err
	}
	return p.accept(answer)
}

// take waits for the turn to put a question.
func (p *proofs) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *proofs) give() { <-p.turn }

// question puts a question until somebody answers it.
func (p *proofs) question(ctx context.Context, q *wirepb.ProveKeys) (*wirepb.KeyProofs, error) {
	for {
		result, err := p.a.Do(ctx, &wirepb.Command{Command: &wirepb.Command_ProveKeys{ProveKeys: q}})
		switch {
		case err != nil:
			return nil, fmt.Errorf("the server did not answer in time: %w", err)
		case result.GetCode() == "" && result.GetProofs() != nil:
			return result.GetProofs(), nil
		case result.GetCode() == "" || result.GetCode() == string(wire.Malformed) || result.GetCode() == "other_version":
			return nil, errNoProofs
		case passing(result.GetCode()) && wait.For(ctx, proofPause):
			continue
		}
		return nil, fmt.Errorf("the server proves no key: %s [%s]", result.GetMessage(), result.GetCode())
	}
}

// passing tells whether a command may go better in a moment.
func passing(code string) bool {
	switch code {
	case "client_not_connected", "store_unavailable", string(wire.TooMany):
		return true
	}
	return false
}

// accept takes over an answer whose proofs are right. The turn is the caller's.
func (p *proofs) accept(in *wirepb.KeyProofs) error {
	answer := logproof.Answer{Signer: in.GetSigner(), Checkpoint: in.GetCheckpoint(), Grown: in.GetGrown()}
	for _, key := range in.GetKeys() {
		answer.Keys = append(answer.Keys, logproof.KeyProof{ClientID: key.GetClientId(), Number: key.GetNumber(), Position: key.GetPosition(),
			Record: key.GetRecord(), Path: key.GetPath()})
	}
	was := p.now()
	next, err := was.Accept(answer)
	if err != nil {
		p.shown(err)
		return err
	}
	p.learn(was, next)
	p.own(was, next)
	return nil
}

// learn takes over what is known now, and saves it. The turn is the caller's.
func (p *proofs) learn(was, next logproof.Known) {
	if p.file != "" && !next.Equal(was) {
		if err := next.Save(p.file); err != nil {
			// The agent works without the file: it forgets what it has seen when it ends.
			p.a.log.Warn("what is known of the server's log could not be saved", "error", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.latest = next, next.Seen()
}

// own looks at this agent's own key in the log.
func (p *proofs) own(was, next logproof.Known) {
	id := p.a.identityID()
	found, ok := next.Keys[id]
	if !ok || len(found.Key) != seal.KeySize {
		return
	}
	key := seal.PublicKey(found.Key)
	if !p.keys.has(key) {
		if was.Keys[id].Number != found.Number {
			p.a.log.Warn("the server's log has a key of this client that is not this agent's: its key file was lost or is a copy's, or somebody else has announced a key in its name",
				"client", id, "number", found.Number, "key", key.String())
		}
		return
	}
	switch changed, err := p.keys.proven(key); {
	case err != nil:
		p.a.log.Error("the next key cannot be taken", "error", err)
	case changed:
		p.a.log.Info("this agent has another key now, with which it encrypts from end to end", "key", key.String(), "number", found.Number)
	}
}

// shown remembers what a server has shown that cannot be right, and logs it once.
func (p *proofs) shown(err error) {
	found, ok := errors.AsType[*logproof.Fault](err)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil || p.fault.Error() != found.Error() {
		p.a.log.Error("THE SERVER'S LOG IS NOT WHAT IT WAS, OR NOT THE ONE THAT OTHERS SEE; keys that it shows are not used", "reason", found)
	}
	p.fault = found
}

// trouble is what the server has shown that cannot be right.
func (p *proofs) trouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// seen is what a peer is told in a handshake: the checkpoint that this agent knows.
func (p *proofs) seen() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest.Append(nil)
}

// compare compares the checkpoint of a peer with the one that this agent knows. Each is
// compared once; the server has to prove that one log begins with the other.
func (p *proofs) compare(ctx context.Context, note []byte) error {
	seen, err := logproof.ParseSeen(note)
	if err != nil {
		return fmt.Errorf("%w: %w", wire.EncryptionFailed, err)
	}
	if seen.Size == 0 || p.fits(seen) {
		return nil // one that knows no log has no proven keys either, and knows this agent's from its owner
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	if p.now().Size() == 0 {
		if _, err := p.refresh(ctx, 0, p.a.identityID()); err != nil {
			return err
		}
	}
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.give()
	if p.fits(seen) {
		return nil
	}
	known := p.now()
	answer, err := p.question(ctx, &wirepb.ProveKeys{Known: known.Size(), Seen: seen.Size})
	if err != nil {
		return err
	}
	next, err := known.Compare(seen, answer.GetBetween())
	if err != nil {
		p.shown(err)
		return err
	}
	p.learn(known, next)
	return nil
}

// fits tells whether a peer's checkpoint was compared before, or is the one that is known.
func (p *proofs) fits(seen logproof.Seen) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return seen == p.latest || slices.Contains(p.known.Fits, seen)
}
