package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

const (
	// drawAttempts bounds how often an id is drawn. With ten million anonymous
	// clients one draw in ten meets an id in use, so that eight in a row are one
	// registration in a hundred million.
	drawAttempts = 8
	defaultPage  = 100
	maxPage      = 1000
)

// drawAnonymousID draws an id that nobody can guess: to know a client's id is
// not to be it, but lists of ids are what attacks begin with.
func drawAnonymousID() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	width := uint64(domain.LastAnonymousID - domain.FirstAnonymousID + 1)
	return domain.FirstAnonymousID + int64(binary.BigEndian.Uint64(b[:])%width)
}

// Register begins an anonymous client.
func (s *state) Register(ctx context.Context, in *controlpb.RegisterRequest) (*controlpb.RegisterAnswer, error) {
	from, err := s.callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.Invite) > 0 {
		return s.redeemInvite(ctx, from.node, in)
	}
	if s.config.RefuseAnonymous {
		return nil, &domain.Error{Code: domain.CodeRegistrationOff, Message: "This server gives no identities to unknown agents."}
	}
	hash, err := requestHash(in.IdempotencyKey, domain.RegisterClient{Name: in.Name, PublicKey: in.PublicKey})
	if err != nil {
		return nil, err
	}
	r, err := s.draw(ctx, func(ctx context.Context) (int64, error) { return s.config.DrawID(), nil }, func(id int64) domain.Submission {
		return domain.Submission{
			Command: domain.RegisterClient{ID: id, Name: in.Name, PublicKey: in.PublicKey, Limits: s.config.AnonymousLimits},
			Meta: domain.Metadata{Actor: fmt.Sprintf("client:%d", id), Source: bounded(in.Source),
				Cause: "session at " + from.node, Allowed: "anonymous registration"},
			Key: in.IdempotencyKey, KeyScope: "node:" + from.node, Hash: hash,
		}
	})
	if err != nil {
		return nil, err
	}
	return &controlpb.RegisterAnswer{ClientId: r.Subject.Number(), Position: int64(r.Position)}, nil
}

// Execute does what a client asks for. What it may do is decided from the log:
// it must be there and enabled, its user too, and it must be an end of every
// mapping it makes or ends. The rest, quotas among it, is the domain's to refuse.
func (s *state) Execute(ctx context.Context, in *controlpb.ExecuteRequest) (*controlpb.ExecuteAnswer, error) {
	from, err := s.callerOf(ctx)
	if err != nil {
		return nil, err
	}
	command, err := domain.DecodeExchanged[domain.ClientCommand](int(in.Form), in.Command)
	if err != nil {
		return nil, err
	}
	if err := s.connected(ctx, command.ClientID, from.node); err != nil {
		return nil, err
	}
	result, err := s.execute(ctx, from.node, command)
	if err != nil {
		return nil, err
	}
	form, data, err := domain.EncodeExchanged(result)
	return &controlpb.ExecuteAnswer{Form: int32(form), Result: data}, err
}

// codeNotConnected is what a node is told that asks for a client elsewhere.
const codeNotConnected domain.Code = "client_not_connected"

// connected refuses a node that asks for a client which is not there: one node
// that was taken over is not everybody's agent.
func (s *state) connected(ctx context.Context, clientID int64, node string) error {
	if s.config.Connected == nil {
		return nil
	}
	there, err := s.config.Connected(ctx, clientID, node)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", &domain.Error{Code: domain.CodeStoreUnavailable,
			Message: "Where the client is connected cannot be found out now."}, err)
	case !there:
		s.config.Metrics.refused.WithLabelValues("not_connected").Inc()
		s.config.Logger.Warn("a node asks for a client that has no session there", "node", node, "client", clientID)
		return &domain.Error{Code: codeNotConnected, Message: "The client has no session at this node, or has just begun it: try again in a few seconds."}
	}
	return nil
}

// allowed says why a client's command was allowed, and whose client it is: the address
// that the command came from belongs to that user.
func allowed(client *domain.Client) string {
	if client.UserID == 0 {
		return "end of the mapping"
	}
	return fmt.Sprintf("end of the mapping user:%d", client.UserID)
}

// execute is Execute for a node that has proved itself.
func (s *state) execute(ctx context.Context, node string, in domain.ClientCommand) (domain.ClientResult, error) {
	head, err := s.config.Head(ctx)
	if err != nil {
		return domain.ClientResult{}, err
	}
	client, err := s.acting(ctx, in.ClientID, head)
	if err != nil {
		return domain.ClientResult{}, err
	}
	if in.List != nil { // what it listens for and leads to it is told in any case
		return s.shown(ctx)(s.listMappings(ctx, client, *in.List, head))
	}
	if in.Prove != nil { // a mapping that its user made works with keys
		return s.prove(ctx, client, *in.Prove, head)
	}
	if err := client.Commanding(); err != nil && in.Announce == nil {
		return domain.ClientResult{}, err
	}
	if in.Clients != nil {
		return s.listClients(ctx, client, *in.Clients, head)
	}
	if in.Create != nil && client.Kind == domain.ClientManaged {
		create := *in.Create
		if create.Options, err = create.Options.Sealed(s.seal(ctx, client.ID, in.Key)); err != nil {
			return domain.ClientResult{}, err
		}
		in.Create = &create
	}
	// A command that is repeated over another session has another source.
	identified, err := identifiedCommand(in)
	if err != nil {
		return domain.ClientResult{}, err
	}
	hash, err := requestHash(in.Key, identified)
	if err != nil {
		return domain.ClientResult{}, err
	}
	submission := domain.Submission{Key: in.Key, KeyScope: fmt.Sprintf("client:%d", client.ID), Hash: hash,
		Meta: domain.Metadata{Actor: fmt.Sprintf("client:%d", client.ID), Source: bounded(in.Source), Request: bounded(in.Request),
			Cause: "session at " + node, Allowed: allowed(client)}}
	switch {
	case in.Create != nil:
		return s.shown(ctx)(s.createMapping(ctx, client, *in.Create, submission, head))
	case in.Redeem != nil:
		return s.shown(ctx)(s.redeemShare(ctx, client, *in.Redeem, submission))
	case in.Share != nil:
		return s.createShare(ctx, client, *in.Share, submission)
	case in.Revoke != nil:
		return s.revokeShare(ctx, client, *in.Revoke, submission, head)
	case in.Announce != nil:
		return s.announce(ctx, client, *in.Announce, submission)
	case in.Delete != nil:
		return s.deleteMapping(ctx, client, *in.Delete, submission, head)
	}
	return domain.ClientResult{}, invalid("command", "must be one this version knows")
}

// identifiedCommand is what identifies a command of a client.
func identifiedCommand(in domain.ClientCommand) (c domain.ClientCommand, err error) {
	c = domain.ClientCommand{ClientID: in.ClientID, Create: in.Create, Redeem: in.Redeem, Delete: in.Delete, Share: in.Share, Revoke: in.Revoke, Announce: in.Announce}
	if in.Create != nil {
		create := *in.Create
		create.Options, err = create.Options.Identified(in.Key)
		c.Create = &create
	}
	if in.Share != nil && err == nil {
		share := *in.Share
		share.Share.Options, err = share.Share.Options.Identified(in.Key)
		c.Share = &share
	}
	return c, err
}

// acting gives the client that asks, when it may ask for anything.
func (s *state) acting(ctx context.Context, id int64, head domain.Position) (*domain.Client, error) {
	client, _, err := foldOf[*domain.Client](ctx, s.folds, domain.ClientStream(id), head)
	switch {
	case err != nil:
		return nil, err
	case !client.Live():
		return nil, noSuchClient()
	case client.Disabled:
		return nil, &domain.Error{Code: domain.CodeClientDisabled, Message: "The client is disabled."}
	case client.Kind != domain.ClientManaged:
		return client, nil
	}
	user, _, err := foldOf[*domain.User](ctx, s.folds, domain.UserStream(client.UserID), head)
	switch {
	case err != nil:
		return nil, err
	case !user.Live():
		return nil, &domain.Error{Code: domain.CodeUserNotFound, Message: "The user of this client is not there."}
	case user.Disabled:
		return nil, &domain.Error{Code: domain.CodeUserDisabled, Message: "The user of this client is disabled."}
	}
	return client, nil
}

func (s *state) createMapping(ctx context.Context, client *domain.Client, command domain.CreateMapping,
	submission domain.Submission, head domain.Position) (domain.ClientResult, error) {
	if client.Kind != domain.ClientManaged {
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeClientNotOwned,
			Message: "An anonymous client belongs to no user, and a mapping needs one: claim the client first."}
	}
	// What another machine listens on is not for this one to say: who has the credential
	// of one agent must not open ports on all machines of its user. Nor is it this one's
	// to lead connections there; that the domain refuses, with what the log says then.
	own := command.SourceClientID == client.ID || command.SourceClientID == 0 && command.TargetClientID == client.ID
	if !own {
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeClientNotOwned, Message: "A client creates mappings of which it is the source, or public ones that lead to it.",
			Faults: []domain.Fault{{Field: "source_client_id", Message: "must be this client"}}}
	}
	for field, id := range map[string]int64{"source_client_id": command.SourceClientID, "target_client_id": command.TargetClientID} {
		if id == client.ID || field == "source_client_id" && id == 0 { // its own, or public
			continue
		}
		// The domain lets a user's mapping end at any anonymous client, because an
		// operator may want that. A client may not: it would reach a stranger.
		other, _, err := foldOf[*domain.Client](ctx, s.folds, domain.ClientStream(id), head)
		if err != nil {
			return domain.ClientResult{}, err
		}
		if !other.Exists() || other.Kind != domain.ClientManaged || other.UserID != client.UserID {
			const message = "The other end must be a client of the same user."
			return domain.ClientResult{}, &domain.Error{Code: domain.CodeClientNotOwned, Message: message,
				Faults: []domain.Fault{{Field: field, Message: message}}}
		}
	}
	// Whose it is and by whose right is not the client's to say.
	command.UserID, command.Any = client.UserID, false
	next := func(ctx context.Context) (int64, error) {
		return s.config.Executor.NextID(ctx, domain.SequenceMapping)
	}
	command = command.By(client.ID)
	r, err := s.draw(ctx, next, func(id int64) domain.Submission {
		command.ID = id
		submission.Command = command
		return submission
	})
	return executed(r, err)
}

// redeemShare makes a mapping of a share code, from the client that asks. Whoever
// shared the service has agreed by passing the code on; so an anonymous client may
// too, within its own limits, and listens for its own machine only.
func (s *state) redeemShare(ctx context.Context, client *domain.Client, in domain.Redemption, submission domain.Submission) (domain.ClientResult, error) {
	id, hash, ok := domain.ParseShareCode(in.Code)
	if !ok {
		const message = "There is no share with this code. Check it, or ask for another one."
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeShareNotFound, Message: message, Faults: []domain.Fault{{Field: "code", Message: message}}}
	}
	if in.Look {
		return s.lookAtShare(ctx, id, hash)
	}
	command := in.Mapping
	if host, err := netip.ParseAddr(command.LocalHost); client.Kind != domain.ClientManaged && command.LocalHost != "" && err == nil && !host.Unmap().IsLoopback() {
		const message = "An anonymous client listens on loopback only: claim the client first."
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeClientNotOwned, Message: message, Faults: []domain.Fault{{Field: "local_host", Message: message}}}
	}
	submission.Meta.Allowed = "share code"
	next := func(ctx context.Context) (int64, error) {
		return s.config.Executor.NextID(ctx, domain.SequenceMapping)
	}
	command.ID, command.Hash, command.RedeemerID, command.SourceClientID, command.At = id, hash, client.UserID, client.ID, s.config.Now().UTC()
	command.Any = true // the source is who asks, whoever that is
	command = command.By(client.ID)
	return executed(s.draw(ctx, next, func(mapping int64) domain.Submission {
		command.MappingID = mapping
		submission.Command = command
		return submission
	}))
}

func (s *state) deleteMapping(ctx context.Context, client *domain.Client, command domain.DeleteMapping,
	submission domain.Submission, head domain.Position) (domain.ClientResult, error) {
	// A deleted one too: who repeats the command that deleted it is told so.
	m, _, err := foldOf[*domain.Mapping](ctx, s.folds, domain.MappingStream(command.ID), head)
	if err != nil {
		return domain.ClientResult{}, err
	}
	if m.SourceClientID != client.ID && m.TargetClientID != client.ID {
		// Whether somebody else has it is nobody's business.
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeMappingNotFound, Message: "There is no such mapping of this client."}
	}
	submission.Command = command
	submission.Meta.At, submission.Meta.Command = s.config.Now().UTC(), submission.Command.CommandName()
	return executed(s.config.Executor.Submit(ctx, submission))
}

// listMappings pages through the mappings a client is an end of.
func (s *state) listMappings(ctx context.Context, client *domain.Client, in domain.MappingPage, head domain.Position) (domain.ClientResult, error) {
	limit := cmp.Or(in.Limit, defaultPage)
	if limit < 0 || limit > maxPage || in.After < 0 {
		return domain.ClientResult{}, invalid("limit", fmt.Sprintf("must be 0 to %d, and after 0 or more", maxPage))
	}
	v, err := s.folds.view(ctx, client.ID, head)
	if err != nil {
		return domain.ClientResult{}, err
	}
	result := domain.ClientResult{Position: v.Position}
	for _, m := range v.Mappings { // in order of ids
		if m.State.ID <= in.After {
			continue
		}
		if len(result.Mappings) == limit {
			result.Next = result.Mappings[limit-1].State.ID
			break
		}
		result.Mappings = append(result.Mappings, m)
	}
	return result, nil
}

// draw submits a command for something new, drawing ids until one is free.
func (s *state) draw(ctx context.Context, next func(context.Context) (int64, error), submission func(id int64) domain.Submission) (domain.Receipt, error) {
	var r domain.Receipt
	err := error(nil)
	for range drawAttempts {
		var id int64
		if id, err = next(ctx); err != nil {
			return r, err
		}
		sub := submission(id)
		sub.Meta.At, sub.Meta.Command = s.config.Now().UTC(), sub.Command.CommandName()
		if r, err = s.config.Executor.Submit(ctx, sub); domain.CodeOf(err) != domain.CodeIDTaken {
			return r, err
		}
	}
	return r, err
}

func executed(r domain.Receipt, err error) (domain.ClientResult, error) {
	if err != nil {
		return domain.ClientResult{}, err
	}
	result := domain.ClientResult{Position: r.Position, Duplicate: r.Duplicate}
	if m, ok := r.State.(*domain.Mapping); ok {
		result.Mappings = []domain.Versioned[domain.Mapping]{{Version: r.Version, State: *m}}
	}
	return result, nil
}

// requestHash identifies what is asked for under a key. Every request that changes
// something has one, since callers repeat what got no answer.
func requestHash(key string, request any) ([sha256.Size]byte, error) {
	if key == "" || len(key) > maxKeyLength {
		return [sha256.Size]byte{}, invalid("idempotency_key", fmt.Sprintf("must have 1 to %d bytes", maxKeyLength))
	}
	b, err := json.Marshal(request)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("identify request: %w", err)
	}
	return sha256.Sum256(b), nil
}

// bounded keeps what goes into the log for people from being long.
func bounded(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return text(s)
}
