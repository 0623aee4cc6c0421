package control

import (
	"context"
	"fmt"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
)

// Proofs proves keys from the tree over the log.
type Proofs interface {
	// Prove proves keys, of which client, number and position are given, and that the log
	// only grew: from known records on, and between known and seen.
	Prove(ctx context.Context, known, seen int64, keys []domain.KeyProof) (*domain.KeyProofs, error)
}

const (
	maxKeys       = 16   // keys that are asked for at once
	keyPositions  = 8192 // clients whose key's position is remembered
	onlyOwnKeys   = "A client asks for the keys of clients at the other end of its mappings."
	noProofsHere  = "This control plane proves no keys."
	tooManyOfKeys = "must name at most 16 keys"
)

// announce writes the key of the client's agent into the log.
func (s *state) announce(ctx context.Context, client *domain.Client, command domain.AnnounceKey, submission domain.Submission) (domain.ClientResult, error) {
	command.ID = client.ID
	submission.Command = command
	submission.Meta.At, submission.Meta.Command, submission.Meta.Allowed = s.config.Now().UTC(), command.CommandName(), "the client itself"
	return executed(s.config.Executor.Submit(ctx, submission))
}

// prove gives keys with their proofs. A client may know the keys of those that it has a
// mapping with, and its own: a list of all clients is nobody's business.
func (s *state) prove(ctx context.Context, client *domain.Client, in domain.KeyQuestion, head domain.Position) (domain.ClientResult, error) {
	switch {
	case s.config.Proofs == nil:
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeStoreUnavailable, Message: noProofsHere}
	case len(in.Keys) > maxKeys:
		return domain.ClientResult{}, invalid("keys", tooManyOfKeys)
	case in.Known < 0 || in.Seen < 0:
		return domain.ClientResult{}, invalid("known", "must be 0 or more, and seen too")
	}
	var keys []domain.KeyProof
	for _, wanted := range in.Keys {
		peer, err := s.peer(ctx, client, wanted, head)
		if err != nil {
			return domain.ClientResult{}, err
		}
		if peer.KeyNumber == 0 || !peer.Live() {
			continue
		}
		at, err := s.keyPosition(ctx, peer)
		if err != nil {
			return domain.ClientResult{}, err
		}
		keys = append(keys, domain.KeyProof{ClientID: peer.ID, Number: peer.KeyNumber, Position: at})
	}
	proofs, err := s.config.Proofs.Prove(ctx, in.Known, in.Seen, keys)
	if err != nil {
		return domain.ClientResult{}, err
	}
	return domain.ClientResult{Position: head, Proofs: proofs}, nil
}

// peer gives the client whose key may be known by the one that asks.
func (s *state) peer(ctx context.Context, client *domain.Client, wanted domain.KeyOf, head domain.Position) (*domain.Client, error) {
	if wanted.ClientID == client.ID {
		return client, nil
	}
	m, _, err := foldOf[*domain.Mapping](ctx, s.folds, domain.MappingStream(wanted.MappingID), head)
	if err != nil {
		return nil, err
	}
	if !m.Live() || !m.HasEnd(client.ID) || !m.HasEnd(wanted.ClientID) {
		return nil, &domain.Error{Code: domain.CodeMappingNotFound, Message: onlyOwnKeys}
	}
	peer, _, err := foldOf[*domain.Client](ctx, s.folds, domain.ClientStream(wanted.ClientID), head)
	return peer, err
}

// keyPosition finds the record of a client's newest key.
func (s *Server) keyPosition(ctx context.Context, client *domain.Client) (domain.Position, error) {
	if at, ok := s.keys.get(client.ID, client.KeyNumber); ok {
		return at, nil
	}
	stream := domain.ClientStream(client.ID)
	for after := domain.Version(0); ; {
		records, err := s.config.Log.ReadStream(ctx, stream, after, foldPage)
		if err != nil {
			return 0, fmt.Errorf("read event stream %s: %w", stream, err)
		}
		for _, r := range records {
			after = r.Version
			event, err := r.Event()
			if err != nil {
				return 0, fmt.Errorf("read event stream %s: %w", stream, err)
			}
			if e, ok := event.(domain.ClientKeyAnnounced); ok && e.Number == client.KeyNumber {
				s.keys.set(client.ID, e.Number, r.Position)
				return r.Position, nil
			}
		}
		if len(records) < foldPage {
			return 0, fmt.Errorf("event stream %s has no key %d", stream, client.KeyNumber)
		}
	}
}

// positions remembers where the newest keys of clients are. The zero value is ready.
type positions struct {
	mu sync.Mutex
	at map[int64]numbered // guarded by mu
}

type numbered struct {
	number int64
	at     domain.Position
}

func (p *positions) get(client, number int64) (domain.Position, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.at[client]
	return found.at, ok && found.number == number
}

func (p *positions) set(client, number int64, at domain.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil || len(p.at) >= keyPositions {
		p.at = map[int64]numbered{}
	}
	p.at[client] = numbered{number, at}
}
