package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// createShare shares a service behind the client that asks. The agent draws the
// code's random part: who repeats the command is given the same code, and it is kept
// nowhere here.
func (s *state) createShare(ctx context.Context, client *domain.Client, in domain.Sharing, submission domain.Submission) (domain.ClientResult, error) {
	if client.Kind != domain.ClientManaged {
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeClientNotOwned,
			Message: "An anonymous client belongs to no user, and what is shared needs one: join with an invitation first."}
	}
	if len(in.Random) != domain.ShareCodeLength || strings.Trim(in.Random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return domain.ClientResult{}, invalid("random", fmt.Sprintf("must be %d characters of base 32", domain.ShareCodeLength))
	}
	command := in.Share
	// Whose it is and where it leads to is not the client's to say.
	command.UserID, command.TargetClientID, command.At = client.UserID, client.ID, s.config.Now().UTC()
	if in.Seconds > 0 {
		command.ExpiresAt = command.At.Add(time.Duration(in.Seconds) * time.Second).Truncate(time.Second)
	}
	submission.Meta.Allowed = "target of the share"
	next := func(context.Context) (int64, error) { return drawShareID(command.At), nil }
	command = command.By(client.ID)
	r, err := s.draw(ctx, next, func(id int64) domain.Submission {
		command.ID, command.Hash = id, domain.HashShareCode(id, in.Random)
		submission.Command = command
		return submission
	})
	if err != nil {
		return domain.ClientResult{}, err
	}
	made, ok := r.State.(*domain.Share)
	if !ok {
		return domain.ClientResult{}, fmt.Errorf("a share was made and is a %T", r.State)
	}
	shown := *made
	shown.Hash = nil
	return domain.ClientResult{Position: r.Position, Duplicate: r.Duplicate, Share: &shown, Code: domain.ShareCode(shown.ID, in.Random)}, nil
}

// shareEpoch is where the ids of shares begin, as those of the REST API.
var shareEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// drawShareID draws an id as the REST API does: the second and 16 random bits, below
// 2^53 for callers whose numbers are doubles.
func drawShareID(now time.Time) int64 {
	var b [2]byte
	rand.Read(b[:]) // never fails
	return max(1, int64(now.Sub(shareEpoch)/time.Second))<<16 | int64(binary.BigEndian.Uint16(b[:]))
}

func (s *state) revokeShare(ctx context.Context, client *domain.Client, command domain.RevokeShare,
	submission domain.Submission, head domain.Position) (domain.ClientResult, error) {
	h, _, err := foldOf[*domain.Share](ctx, s.folds, domain.ShareStream(command.ID), head)
	if err != nil {
		return domain.ClientResult{}, err
	}
	if h.TargetClientID != client.ID {
		return domain.ClientResult{}, &domain.Error{Code: domain.CodeShareNotFound, Message: "There is no such share of this client."}
	}
	submission.Command = command
	submission.Meta.At, submission.Meta.Command, submission.Meta.Allowed = s.config.Now().UTC(), command.CommandName(), "target of the share"
	r, err := s.config.Executor.Submit(ctx, submission)
	return domain.ClientResult{Position: r.Position, Duplicate: r.Duplicate}, err
}

// listClients pages through the clients of the asking client's user: people say names,
// and machines need ids.
func (s *state) listClients(ctx context.Context, client *domain.Client, in domain.ClientPage, head domain.Position) (domain.ClientResult, error) {
	limit := in.Limit
	if limit == 0 {
		limit = defaultPage
	}
	if limit < 0 || limit > maxPage || in.After < 0 {
		return domain.ClientResult{}, invalid("limit", fmt.Sprintf("must be 0 to %d, and after 0 or more", maxPage))
	}
	result := domain.ClientResult{Position: head}
	if client.Kind != domain.ClientManaged {
		return result, nil
	}
	quota, _, err := foldOf[*domain.Quota](ctx, s.folds, domain.QuotaStream(client.UserID), head)
	if err != nil {
		return domain.ClientResult{}, err
	}
	for _, id := range quota.ClientIDs() {
		if id <= in.After {
			continue
		}
		c, _, err := foldOf[*domain.Client](ctx, s.folds, domain.ClientStream(id), head)
		switch {
		case err != nil:
			return domain.ClientResult{}, err
		case !c.Live() || in.Name != "" && c.Name != in.Name:
			continue
		case len(result.Clients) == limit:
			result.Next = result.Clients[limit-1].ID
			return result, nil
		}
		shown := *c
		shown.PublicKey = nil
		result.Clients = append(result.Clients, shown)
	}
	return result, nil
}

// shown completes a result with where visitors reach its mappings.
func (s *state) shown(ctx context.Context) func(domain.ClientResult, error) (domain.ClientResult, error) {
	return func(r domain.ClientResult, err error) (domain.ClientResult, error) {
		if err != nil || s.config.Public == nil {
			return r, err
		}
		public := s.config.Public(ctx)
		for _, m := range r.Mappings {
			r.Public = append(r.Public, public(&m.State))
		}
		return r, nil
	}
}

// lookAtShare tells whoever has the code what the share leads to: which port its
// listener would best have can be decided before the code is used.
func (s *state) lookAtShare(ctx context.Context, id int64, hash []byte) (domain.ClientResult, error) {
	head, err := s.config.Head(ctx)
	if err != nil {
		return domain.ClientResult{}, err
	}
	h, _, err := foldOf[*domain.Share](ctx, s.folds, domain.ShareStream(id), head)
	if err != nil {
		return domain.ClientResult{}, err
	}
	if err := h.Redeemable(hash, s.config.Now()); err != nil {
		return domain.ClientResult{}, err
	}
	return domain.ClientResult{Position: head, Mappings: []domain.Versioned[domain.Mapping]{{State: domain.Mapping{
		Name: h.Name, Protocol: h.Protocol, Service: domain.Service{TargetPort: h.TargetPort}, ShareID: h.ID}}}}, nil
}
