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

// registrar gives identities to agents that have none: anonymous clients.
type registrar struct {
	executor httpapi.Executor
	reader   *projections.Reader
	limits   domain.Limits // what an anonymous client begins with
}

// drawAttempts bounds how often an id is drawn. With ten million anonymous
// clients one draw in ten meets an id in use, so that eight in a row are one
// registration in a hundred million.
const drawAttempts = 8

// Register begins an anonymous client. It returns when the read models show it,
// since the forwarder looks the client up there next.
func (r *registrar) Register(ctx context.Context, publicKey []byte, name, source string) (int64, error) {
	for range drawAttempts {
		id := drawAnonymousID()
		command := domain.RegisterClient{ID: id, Name: name, PublicKey: publicKey, Limits: r.limits}
		receipt, err := r.executor.Submit(ctx, domain.Submission{Command: command, Meta: domain.Metadata{
			At: time.Now().UTC(), Actor: fmt.Sprintf("client:%d", id), Command: command.CommandName(),
			Source: source, Allowed: "anonymous registration",
		}})
		if domain.CodeOf(err) == domain.CodeIDTaken {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("register anonymous client: %w", err)
		}
		return id, r.reader.Wait(ctx, receipt.Position)
	}
	return 0, errors.New("register anonymous client: no free id was drawn")
}

// drawAnonymousID draws an id that nobody can guess: to know a client's id is
// not to be it, but lists of ids are what attacks begin with.
func drawAnonymousID() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	width := uint64(domain.LastAnonymousID - domain.FirstAnonymousID + 1)
	return domain.FirstAnonymousID + int64(binary.BigEndian.Uint64(b[:])%width)
}
