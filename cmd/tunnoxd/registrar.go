package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/projections"
)

// registrar gives identities to agents that have none: anonymous clients, or clients of
// the user who invited them.
type registrar struct {
	executor httpapi.Executor
	reader   *projections.Reader
	refuses  bool          // refuse agents without an invitation
	limits   domain.Limits // the first limits of an anonymous client
}

// drawAttempts bounds how often an id is drawn. With ten million anonymous clients one
// draw in ten gives an id in use, so eight in a row are one registration in a hundred
// million.
const drawAttempts = 8

// Register makes a client. It returns when the read models show the client, because the
// forwarder looks it up there next.
func (r *registrar) Register(ctx context.Context, asked domain.Registration) (int64, error) {
	if asked.Invite != nil {
		return r.redeem(ctx, asked)
	}
	if r.refuses {
		return 0, &domain.Error{Code: domain.CodeRegistrationOff, Message: "This server gives no identities to unknown agents."}
	}
	var id int64
	receipt, err := r.draw(ctx, func() (domain.Submission, error) {
		id = drawAnonymousID()
		command := domain.RegisterClient{ID: id, Name: asked.Name, PublicKey: asked.PublicKey, Limits: r.limits}
		return submissionOf(command, fmt.Sprintf("client:%d", id), asked.Source, "anonymous registration"), nil
	})
	if err != nil {
		return 0, fmt.Errorf("register anonymous client: %w", err)
	}
	return id, r.reader.Wait(ctx, receipt.Position)
}

// redeem makes the agent a client of the user who invited it.
func (r *registrar) redeem(ctx context.Context, asked domain.Registration) (int64, error) {
	command, err := asked.Redeem()
	if err != nil {
		return 0, err
	}
	command.At = time.Now().UTC()
	receipt, err := r.draw(ctx, func() (domain.Submission, error) {
		var err error
		command.ClientID, err = r.executor.NextID(ctx, domain.SequenceClient)
		return submissionOf(command, string(command.Subject()), asked.Source, "invitation"), err
	})
	if err != nil {
		return 0, fmt.Errorf("redeem an invitation: %w", err)
	}
	id, ok := domain.Invited(receipt, asked.PublicKey)
	if !ok {
		return 0, errors.New("redeem an invitation: the answer names no client")
	}
	return id, r.reader.Wait(ctx, receipt.Position)
}

// draw submits a command for a new client. It draws ids until one is free.
func (r *registrar) draw(ctx context.Context, next func() (domain.Submission, error)) (receipt domain.Receipt, err error) {
	for range drawAttempts {
		var s domain.Submission
		if s, err = next(); err != nil {
			return receipt, err
		}
		if receipt, err = r.executor.Submit(ctx, s); domain.CodeOf(err) != domain.CodeIDTaken {
			return receipt, err
		}
	}
	return receipt, err
}

func submissionOf(command domain.Command, actor, source, allowed string) domain.Submission {
	return domain.Submission{Command: command, Meta: domain.Metadata{At: time.Now().UTC(), Actor: actor,
		Command: command.CommandName(), Source: source, Allowed: allowed}}
}

// drawAnonymousID draws an id that nobody can guess. Knowing a client's id gives no
// rights, but attacks begin with lists of ids.
func drawAnonymousID() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	width := uint64(domain.LastAnonymousID - domain.FirstAnonymousID + 1)
	return domain.FirstAnonymousID + int64(binary.BigEndian.Uint64(b[:])%width)
}
