package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flynn/noise"
)

// Version is the version of handshake and records. It fixes all algorithms but the
// cipher of the records. Another set is another version.
const Version = 1

// MaxNote bounds what the ends may tell each other inside of the handshake.
const MaxNote = 256

// Errors of a handshake. A handshake that fails carries nothing.
var (
	// ErrHandshake: the message is not one of a peer that means the same and has the
	// right key. Whoever carried it may have changed it.
	ErrHandshake = errors.New("seal: the handshake failed")
	// ErrVersion, which is an ErrHandshake: the peer speaks another version.
	ErrVersion = fmt.Errorf("%w: the peer speaks another version", ErrHandshake)
)

// Replayed is the error of a first message whose counter was seen before, or is too old
// for this end to know. It is an ErrHandshake.
type Replayed struct {
	Least uint64 // a counter that this end would take; for Party.Advance of the initiator
}

func (Replayed) Error() string { return "seal: the first message was sent before" }

// Unwrap makes it an ErrHandshake.
func (Replayed) Unwrap() error { return ErrHandshake }

// Party is one agent in its handshakes, as initiator and as responder. Its methods may
// be called concurrently.
type Party struct {
	keys    []*static
	counter atomic.Uint64
	seen    replays

	// What is shared with peers after a handshake, for further streams.
	asked    shelf // of initiators' handshakes
	answered shelf // of responders'
}

// NewParty is the agent with this key. Peers that have not heard of it yet may still
// use an earlier one.
func NewParty(key Key, earlier ...Key) *Party {
	p := &Party{keys: []*static{newStatic(key)}}
	for _, k := range earlier {
		p.keys = append(p.keys, newStatic(k))
	}
	p.counter.Store(uint64(time.Now().UnixNano())) // a restarted agent goes on above where it was
	return p
}

// Public is the key that the agent's peers should know.
func (p *Party) Public() PublicKey { return p.keys[0].key.public }

// Advance makes the counters of first messages at least this. The clock of this machine
// may have gone back, and a responder then knows higher ones. A value that no clock will
// give in this century is ignored.
func (p *Party) Advance(least uint64) {
	const limit = 1 << 62 // the year 2116, in nanoseconds
	for least < limit {
		was := p.counter.Load()
		if was+1 >= least || p.counter.CompareAndSwap(was, least-1) {
			return
		}
	}
}

// Initiation is the initiator's side of a handshake that has begun. It is used once.
type Initiation struct {
	party *Party
	peer  PublicKey
	state *noise.HandshakeState
	kem   *mlkem.DecapsulationKey768
	aes   bool

	kept            *kept // goes on after an earlier handshake; nil: this is a whole one
	prologue, first []byte
	made            *kept // by a whole handshake that is finished
}

// Keep has further streams to this peer go on after this handshake, once it is finished. The
// caller has checked the peer's note: there is none when a stream goes on.
func (i *Initiation) Keep() {
	if i.made != nil {
		i.party.asked.add(i.made)
	}
}

// Resumed tells whether it goes on with what an earlier handshake gave. Then there are no
// notes.
func (i *Initiation) Resumed() bool { return i.kept != nil }

// Forget has the next handshake with this peer be a whole one: the peer has forgotten the
// earlier one.
func (i *Initiation) Forget() {
	if i.kept != nil {
		i.party.asked.drop(i.kept)
	}
}

// Initiate begins a handshake with the agent that has this key. first goes into Open:
// it shows nothing but its length. If there was a handshake with that agent a short time
// ago, it goes on with what that one gave.
func (p *Party) Initiate(peer PublicKey, terms Terms, note []byte) (i *Initiation, first []byte, err error) {
	if !p.keys[0].key.Valid() || !peer.Valid() || len(note) > MaxNote {
		return nil, nil, fmt.Errorf("initiate: %w", errors.New("a key is missing, or the note is too long"))
	}
	if k := p.asked.with(peer); k != nil {
		prologue := terms.prologue()
		first = k.again(prologue)
		return &Initiation{party: p, peer: peer, kept: k, prologue: prologue, first: first}, first, nil
	}
	p.keys[0].keep(peer)
	state, err := handshake(p.keys[0], true, peer[:], terms)
	if err != nil {
		return nil, nil, err
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, nil, fmt.Errorf("initiate: %w", err)
	}
	payload := make([]byte, 0, offerSize+len(note))
	payload = append(payload, flags(hardwareAES)|flagKeep)
	payload = binary.BigEndian.AppendUint64(payload, p.counter.Add(1))
	payload = append(payload, kem.EncapsulationKey().Bytes()...)
	payload = append(payload, note...)
	first, _, _, err = state.WriteMessage([]byte{Version}, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("initiate: %w", err)
	}
	return &Initiation{party: p, peer: peer, state: state, kem: kem, aes: hardwareAES}, first, nil
}

// offerSize is the length of the first payload without its note: flags, counter,
// encapsulation key. answerSize is that of the second: flags, ciphertext.
const (
	offerSize  = 1 + 8 + mlkem.EncapsulationKeySize768
	answerSize = 1 + mlkem.CiphertextSize768
)

// Finish takes the responder's message from Opened. note is what the responder had to
// say.
func (i *Initiation) Finish(answer []byte) (s *Secrets, note []byte, err error) {
	if i.kept != nil {
		s, err = i.kept.finishAgain(i.prologue, i.first[:againFirst-proofSize], answer)
		return s, nil, err
	}
	body, err := versioned(answer)
	if err != nil {
		return nil, nil, err
	}
	payload, out, in, err := i.state.ReadMessage(nil, body)
	if err != nil || len(payload) < answerSize || len(payload) > answerSize+MaxNote || payload[0]&^(flagAES|flagKeep) != 0 {
		return nil, nil, ErrHandshake
	}
	aes := payload[0]&flagAES != 0
	if aes && !i.aes {
		return nil, nil, ErrHandshake // this end did not offer it
	}
	shared, err := i.kem.Decapsulate(payload[1:answerSize])
	if err != nil {
		return nil, nil, ErrHandshake
	}
	master, err := masterOf(i.state.ChannelBinding(), out, in, shared)
	if err != nil {
		return nil, nil, err
	}
	if payload[0]&flagKeep != 0 {
		if i.made, err = keptOf(master, i.peer, aes, time.Now().Add(keepFor)); err != nil {
			return nil, nil, err
		}
	}
	s, err = expand(master, aes, true)
	return s, payload[answerSize:], err
}

// Response is the responder's side of a handshake that can be completed.
type Response struct {
	// Peer is the initiator's static key, which it has proved.
	Peer PublicKey
	// Note is what the initiator had to say. Whoever carries the message cannot have
	// changed it.
	Note []byte

	party *Party
	state *noise.HandshakeState
	kem   *mlkem.EncapsulationKey768
	flags byte

	kept            *kept // goes on after an earlier handshake; nil: this is a whole one
	prologue, first []byte
}

// Respond takes the initiator's message from Open. trust is asked whether a key is that
// of the agent which the terms name as source, and an error of it is returned. A message
// that was taken before is refused with Replayed: the caller must not act on it.
func (p *Party) Respond(first []byte, terms Terms, trust func(PublicKey) error) (*Response, error) {
	if len(first) > 0 && first[0] == resumed {
		return p.respondAgain(first, terms, trust)
	}
	body, err := versioned(first)
	if err != nil {
		return nil, err
	}
	var state *noise.HandshakeState
	var payload []byte
	var own *static
	for _, key := range p.keys {
		if state, err = handshake(key, false, nil, terms); err != nil {
			return nil, err
		}
		if payload, _, _, err = state.ReadMessage(nil, body); err == nil {
			own = key
			break
		}
	}
	if err != nil || len(payload) < offerSize || len(payload) > offerSize+MaxNote || payload[0]&^(flagAES|flagKeep) != 0 {
		return nil, ErrHandshake
	}
	peer := PublicKey(state.PeerStatic()) // not of low order: the secret with it was not zero
	if err := trust(peer); err != nil {
		return nil, err
	}
	own.keep(peer)
	kem, err := mlkem.NewEncapsulationKey768(payload[9:offerSize])
	if err != nil {
		return nil, ErrHandshake
	}
	if least, ok := p.seen.fresh(peer, binary.BigEndian.Uint64(payload[1:])); !ok {
		return nil, Replayed{Least: least}
	}
	return &Response{Peer: peer, Note: payload[offerSize:], party: p, state: state, kem: kem, flags: payload[0]}, nil
}

// Finish completes the handshake. answer goes into Opened. It is called once, and not before
// the caller has checked the peer's note: further streams go on after it without one.
func (r *Response) Finish(note []byte) (answer []byte, s *Secrets, err error) {
	if len(note) > MaxNote {
		return nil, nil, fmt.Errorf("respond: a note of %d bytes is too long", len(note))
	}
	if r.kept != nil {
		return r.kept.answerAgain(r.prologue, r.first[:againFirst-proofSize])
	}
	shared, ciphertext := r.kem.Encapsulate()
	aes := r.flags&flagAES != 0 && hardwareAES
	payload := make([]byte, 0, answerSize+len(note))
	payload = append(payload, flags(aes)|r.flags&flagKeep)
	payload = append(payload, ciphertext...)
	payload = append(payload, note...)
	answer, in, out, err := r.state.WriteMessage([]byte{Version}, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("respond: %w", err)
	}
	master, err := masterOf(r.state.ChannelBinding(), in, out, shared)
	if err != nil {
		return nil, nil, err
	}
	if r.flags&flagKeep != 0 {
		k, err := keptOf(master, r.Peer, aes, time.Now().Add(keepFor+keepGrace))
		if err != nil {
			return nil, nil, err
		}
		r.party.answered.add(k)
	}
	s, err = expand(master, aes, false)
	return answer, s, err
}

// Secrets is what two ends share after a handshake: New makes records of it. It is used
// for one stream.
type Secrets struct {
	binding [32]byte
	out, in [32]byte // of what this end sends and receives
	aes     bool     // AES-256-GCM, else ChaCha20-Poly1305
}

// Binding is a value that only the two ends of this stream know.
func (s *Secrets) Binding() []byte { return bytes.Clone(s.binding[:]) }

// String hides the secrets.
func (s *Secrets) String() string { return "seal.Secrets" }

// GoString hides the secrets from %#v.
func (s *Secrets) GoString() string { return s.String() }

// masterOf combines the secrets of Noise and ML-KEM. The handshake's hash is the salt, so
// that it belongs to this very handshake. forth is from the initiator to the responder.
func masterOf(hash []byte, forth, back *noise.CipherState, shared []byte) ([]byte, error) {
	k1, k2 := forth.UnsafeKey(), back.UnsafeKey()
	master, err := hkdf.Extract(sha256.New, append(append(k1[:], k2[:]...), shared...), hash)
	if err != nil {
		return nil, fmt.Errorf("derive: %w", err)
	}
	return master, nil
}

// expand makes the secrets of the two directions.
func expand(master []byte, aes, initiator bool) (*Secrets, error) {
	s := &Secrets{aes: aes}
	for _, part := range []struct {
		label string
		to    *[32]byte
	}{{"tunnox seal forth", &s.out}, {"tunnox seal back", &s.in}, {"tunnox seal binding", &s.binding}} {
		b, err := hkdf.Expand(sha256.New, master, part.label, 32)
		if err != nil {
			return nil, fmt.Errorf("derive: %w", err)
		}
		copy(part.to[:], b)
	}
	if !initiator {
		s.out, s.in = s.in, s.out
	}
	return s, nil
}

func handshake(own *static, initiator bool, peer []byte, terms Terms) (*noise.HandshakeState, error) {
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(&exchange{static: own}, noise.CipherChaChaPoly, noise.HashSHA256), Random: rand.Reader, Pattern: noise.HandshakeIK, Initiator: initiator,
		Prologue: terms.prologue(), PeerStatic: peer,
		StaticKeypair: noise.DHKey{Private: own.key.secret[:], Public: own.key.public[:]},
	})
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return state, nil
}

// versioned gives what follows the version.
func versioned(message []byte) ([]byte, error) {
	switch {
	case len(message) == 0:
		return nil, ErrHandshake
	case message[0] != Version:
		return nil, ErrVersion
	}
	return message[1:], nil
}

// flagAES says that an end has instructions for AES, and in the answer that both have.
// flagKeep says that an end can go on with what the handshake gives.
const (
	flagAES  = 1
	flagKeep = 2
)

func flags(aes bool) byte {
	if aes {
		return flagAES
	}
	return 0
}
