package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// carriesSeal says in Hello that this agent encrypts from end to end, in version 1 of
// package seal.
const carriesSeal = "seal-1"

// Sealing is what an agent encrypts from end to end with.
type Sealing struct {
	// Keys are the agent's own. The agent announces them to its server.
	Keys *Keyring
	// Pinned are keys of other clients that the owner has named. For those clients nothing
	// else counts. For others the newest key counts that the server's log is proven to have.
	Pinned PinnedKeys
	// Log is the file where the agent keeps what it knows of its server's log; "": nowhere.
	Log string
	// Peers, if set, knows the keys of others in place of Pinned and the log. The agent
	// announces nothing then.
	Peers Peers
}

// seals is what an agent encrypts from end to end with, in use.
type seals struct {
	keys   *Keyring
	peers  Peers
	proofs *proofs       // nil with Peers of an embedder
	known  *knownPeers   // the same
	poke   chan struct{} // there is another key to be announced
}

func newSeals(a *Agent, from *Sealing) *seals {
	s := &seals{keys: from.Keys, peers: from.Peers, poke: make(chan struct{}, 1)}
	if s.peers == nil {
		s.proofs = newProofs(a, from.Log, from.Keys)
		s.known = &knownPeers{from.Pinned, s.proofs}
		s.peers = s.known
	}
	return s
}

// seen is what a peer is told of the server's log.
func (s *seals) seen() []byte {
	if s.proofs == nil {
		return nil
	}
	return s.proofs.seen()
}

// compare compares what a peer has seen of the server's log with what this agent has.
func (s *seals) compare(ctx context.Context, client int64, note []byte) error {
	if s.known == nil {
		return nil
	}
	return s.known.compare(ctx, client, note)
}

// Peers knows whose a static key is. Its errors say why a key is not used, and carry a
// code for the other end.
type Peers interface {
	// KeyOf gives the static key of the client at the other end of a mapping.
	KeyOf(ctx context.Context, mapping, client int64) (seal.PublicKey, error)
	// Trust tells whether a key is a static key of the client at the other end of a
	// mapping.
	Trust(ctx context.Context, mapping, client int64, key seal.PublicKey) error
}

// initiation is a source agent's handshake whose answer has not come.
type initiation struct {
	seals   *seals
	party   *seal.Party
	peer    seal.PublicKey
	mapping int64
	target  int64 // client
	half    *seal.Initiation
}

// initiate puts the first message of a handshake into a copy of the Open, if the mapping
// demands encryption from end to end. It returns nil, and the Open as it is, if not.
func (s *session) initiate(ctx context.Context, open *wirepb.Open, o *options) (*initiation, *wirepb.Open, error) {
	if !o.sealed() {
		return nil, open, nil
	}
	seals := s.a.seals
	if seals == nil {
		return nil, nil, wire.EncryptionUnavailable
	}
	peer, err := seals.peers.KeyOf(ctx, open.GetMappingId(), o.target)
	if err != nil {
		return nil, nil, fmt.Errorf("the key of client %d: %w", o.target, err)
	}
	party := seals.keys.Party()
	half, first, err := party.Initiate(peer, seal.Terms{Mapping: open.GetMappingId(), Source: s.client, Target: o.target,
		Protocol: o.protocol, Destination: open.GetDestination(), Version: o.version}, seals.seen())
	if err != nil {
		return nil, nil, err
	}
	open = proto.CloneOf(open)
	open.Seal, open.ListenerVersion = first, o.version
	return &initiation{seals, party, peer, open.GetMappingId(), o.target, half}, open, nil
}

// finish makes a stream encrypted when the target agent's message has come.
func (i *initiation) finish(ctx context.Context, stream transport.Stream, answer []byte) (transport.Stream, error) {
	if i == nil {
		return stream, nil
	}
	if len(answer) == 0 {
		return nil, &wire.Refusal{Code: wire.EncryptionRequired, Message: "the answer has no key: the target agent, or whoever is in between, does not encrypt from end to end"}
	}
	secrets, note, err := i.half.Finish(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", wire.EncryptionFailed, err)
	}
	if !i.half.Resumed() {
		if err := i.seals.compare(ctx, i.target, note); err != nil {
			return nil, err
		}
		i.half.Keep()
	}
	return seal.New(stream, secrets)
}

// replayed takes over what the target agent has to say about the counters of first
// messages, and reports whether another try makes sense: the clock of this machine has
// gone back since the target agent saw it.
func (i *initiation) replayed(err error) bool {
	refusal, ok := errors.AsType[*wire.Refusal](err)
	if i == nil || !ok || refusal.Code != wire.EncryptionReplayed || refusal.Least == 0 {
		return false
	}
	i.party.Advance(refusal.Least)
	return true
}

// renewed reports whether another try makes sense because the target agent has forgotten the
// handshake after which this one went on, or has got another key: then it cannot read what
// was meant for the one before.
func (i *initiation) renewed(ctx context.Context, err error) bool {
	switch {
	case i == nil || !errors.Is(err, wire.EncryptionFailed):
		return false
	case i.half.Resumed():
		i.half.Forget()
		return true
	}
	return i.seals.known != nil && i.seals.known.newer(ctx, i.mapping, i.target, i.peer)
}

// unseal takes the first message of a handshake from an Open. It returns nil when the
// stream is not encrypted from end to end, and the owner of this agent has not demanded
// that. It returns before the service is dialled: an Open that was sent before must not
// reach the service.
func (t *target) unseal(ctx context.Context, s *session, open *wirepb.Open) (*seal.Response, error) {
	if len(open.GetSeal()) == 0 {
		if t.agent.sealedOnly {
			return nil, &wire.Refusal{Code: wire.EncryptionRequired, Message: "the owner of the target agent allows connections that are encrypted from end to end only"}
		}
		return nil, nil
	}
	seals := t.agent.seals
	if seals == nil {
		return nil, wire.EncryptionUnavailable
	}
	terms := seal.Terms{Mapping: open.GetMappingId(), Source: open.GetSourceClient(), Target: s.client,
		Protocol: open.GetMappingProtocol(), Version: open.GetListenerVersion()}
	if terms.Protocol == "" {
		terms.Protocol = open.GetProtocol()
	}
	if terms.Protocol == "socks5" {
		terms.Destination = open.GetService() // what the client of the source agent asked for
	}
	response, err := seals.keys.Party().Respond(open.GetSeal(), terms, func(key seal.PublicKey) error {
		return seals.peers.Trust(ctx, terms.Mapping, terms.Source, key)
	})
	if replayed, ok := errors.AsType[seal.Replayed](err); ok {
		return nil, &wire.Refusal{Code: wire.EncryptionReplayed, Message: wire.EncryptionReplayed.Sentence(), Least: replayed.Least}
	}
	if errors.Is(err, seal.ErrHandshake) {
		return nil, fmt.Errorf("%w: %w", wire.EncryptionFailed, err)
	}
	if err == nil {
		err = seals.compare(ctx, terms.Source, response.Note)
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// asRefusal makes an error of this agent's side of a handshake one that ends the opening:
// another session would not help.
func asRefusal(err error) error {
	if _, ok := errors.AsType[*wire.Refusal](err); ok {
		return err
	}
	code := wire.CodeOf(err)
	if code == wire.Internal {
		code = wire.KeyRefused
	}
	return &wire.Refusal{Code: code, Message: err.Error()}
}

// opened answers yes, and makes the stream encrypted if response is not nil.
func (t *target) opened(stream transport.Stream, response *seal.Response) (transport.Stream, error) {
	if response == nil {
		return stream, wire.WriteOpened(stream, nil)
	}
	answer, secrets, err := response.Finish(t.agent.seals.seen())
	if err != nil {
		return nil, err
	}
	if err := wire.WriteOpenedSealed(stream, answer); err != nil {
		return nil, err
	}
	return seal.New(stream, secrets)
}

// offers lists what this agent carries over a link, for Hello.
func (a *Agent) offers(link transport.Session) []string {
	names := protocols()
	if a.seals != nil {
		names = append(names, carriesSeal)
		if transport.HasLanes(link) && !a.noLanes {
			names = append(names, carriesLane)
		}
	}
	slices.Sort(names)
	return names
}
