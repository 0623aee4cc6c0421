package control

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// redeemInvite makes an agent with an invitation a client of the user who invited. It
// also works if unknown agents are refused, because a user has asked for this agent.
func (s *state) redeemInvite(ctx context.Context, node string, in *controlpb.RegisterRequest) (*controlpb.RegisterAnswer, error) {
	command, err := domain.Registration{PublicKey: in.PublicKey, Name: in.Name, Invite: in.Invite, Reachable: in.Reachable}.Redeem()
	if err != nil {
		return nil, err
	}
	hash, err := requestHash(in.IdempotencyKey, command)
	if err != nil {
		return nil, err
	}
	next := func(ctx context.Context) (int64, error) {
		return s.config.Executor.NextID(ctx, domain.SequenceClient)
	}
	command.At = s.config.Now().UTC()
	r, err := s.draw(ctx, next, func(id int64) domain.Submission {
		command.ClientID = id
		return domain.Submission{Command: command, Key: in.IdempotencyKey, KeyScope: "node:" + node, Hash: hash,
			Meta: domain.Metadata{Actor: string(command.Subject()), Source: bounded(in.Source), Cause: "session at " + node, Allowed: "invitation"}}
	})
	if err != nil {
		return nil, err
	}
	id, ok := domain.Invited(r, command.PublicKey)
	if !ok {
		return nil, errors.New("an invitation was redeemed, but the answer names no client")
	}
	return &controlpb.RegisterAnswer{ClientId: id, Position: int64(r.Position)}, nil
}
