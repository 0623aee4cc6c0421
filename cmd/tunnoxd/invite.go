package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wholefile"
	"github.com/tunnox-net/tunnox/wire"
)

// joining is the part of an invitation's code that says where to connect.
type joining struct {
	pin     transport.Pin
	servers func(context.Context) []string // addresses for agents now, the best first
}

const (
	// maxJoinServers is how many addresses a code has. One that works is enough,
	// because the server names the others.
	maxJoinServers = 3

	// The invitation of the first start has enough uses for a first evening, and
	// expires.
	firstInviteUses = 10
	firstInviteTime = 30 * 24 * time.Hour

	// firstUserID is the id of the user that the first start makes: the last id before
	// those of the sequence.
	firstUserID = domain.FirstUserID - 1
)

// joinCode makes the code of an invitation.
func (cp *controlPlane) joinCode(ctx context.Context, id int64, secret []byte) (string, error) {
	to := cp.joining.Load()
	if to == nil {
		return "", errors.New("this process is still starting")
	}
	servers := to.servers(ctx)
	if len(servers) == 0 {
		return "", errors.New("no forwarder is running")
	}
	invite := wire.Invite{ID: id, Secret: secret, Servers: servers[:min(len(servers), maxJoinServers)], Pins: [][]byte{to.pin[:]}}
	return invite.Code()
}

// ownServers gives the addresses for agents of this process and, in a cluster, of other
// forwarders.
func (p *process) ownServers(ctx context.Context, b *backend, cluster bool) []string {
	servers := strings.Split(reachable(p.cfg.AdvertiseAgents, p.sockets.agents.Addr()), ",")
	if cluster {
		for _, other := range p.agentsServers(ctx, b.directory) {
			if !slices.Contains(servers, other) {
				servers = append(servers, other)
			}
		}
	}
	return servers
}

// firstInvite makes a user and an invitation for that user, at the first start with an
// empty log, so that nobody has to begin with ids. It gives the command that joins a
// machine; "" if this is not the first start.
func (p *process) firstInvite(ctx context.Context, cp *controlPlane) (string, error) {
	if !p.dir.fresh || p.cfg.FirstInvite != "on" {
		return "", nil
	}
	users, _, err := cp.reader.Users(ctx, 0, 1)
	if err != nil || len(users) > 0 {
		return "", err // with users, this is not the first start
	}
	submit := func(c domain.Command) error {
		_, err := cp.executor.Submit(ctx, domain.Submission{Command: c, Meta: domain.Metadata{At: time.Now().UTC(), Actor: "system",
			Command: c.CommandName(), Allowed: "first start"}})
		return err
	}
	if err := submit(domain.CreateUser{ID: firstUserID, Username: "admin", Email: "admin@localhost", Role: domain.RoleAdmin}); err != nil {
		if code := domain.CodeOf(err); code == domain.CodeIDTaken || code == domain.CodeUsernameTaken {
			return "", nil // another process of the cluster was first
		}
		return "", fmt.Errorf("make the first user: %w", err)
	}
	secret := make([]byte, domain.InviteSecretLength)
	rand.Read(secret) // never fails
	at := time.Now().UTC()
	id := httpapi.DrawID(at)
	if err := submit(domain.CreateInvite{ID: id, UserID: firstUserID, Name: "first start", Hash: domain.HashInvite(id, secret),
		MaxUses: firstInviteUses, ExpiresAt: at.Add(firstInviteTime).Truncate(time.Second), At: at}); err != nil {
		return "", fmt.Errorf("make the first invitation: %w", err)
	}
	code, err := cp.joinCode(ctx, id, secret)
	if err != nil {
		return "", fmt.Errorf("make the first invitation: %w", err)
	}
	line := "tunnox join " + code
	return line, wholefile.Write(p.dir.file("join"), []byte(line+"\n"), 0o600)
}
