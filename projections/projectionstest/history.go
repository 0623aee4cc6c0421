package projectionstest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// History draws the commands for a log: users, managed and anonymous clients, mappings
// among them, every change and end of each. Some commands are refused; this is
// intended.
type History struct {
	log      *Log
	draw     func(n int) int // 0 <= result < n
	users    []int64
	clients  []int64
	mappings []int64
	keys     []int64
	logins   []int64
	shares   []int64
	invites  []int64
	domains  []int64
	webhooks []int64
	next     int64
}

// NewHistory writes to a log, with draw as its source of randomness.
func NewHistory(log *Log, draw func(n int) int) *History { return &History{log: log, draw: draw} }

// Seeded gives a draw that repeats for the same seed.
func Seeded(seed uint64) func(n int) int {
	r := rand.New(rand.NewPCG(seed, seed))
	return func(n int) int { return r.IntN(n) }
}

func pick(h *History, ids []int64) int64 {
	if len(ids) == 0 {
		return 1
	}
	// The newest few are drawn as often as all others, so that resources in use are
	// deleted too.
	if h.draw(2) == 0 {
		return ids[len(ids)-1-h.draw(min(len(ids), 4))]
	}
	return ids[h.draw(len(ids))]
}

func (h *History) id(first int64) int64 {
	h.next++
	return first + h.next
}

// Step submits one command, and reports whether it was accepted.
func (h *History) Step() bool {
	c := h.command()
	if err := h.log.Submit(c); err != nil {
		return false
	}
	switch c := c.(type) {
	case domain.CreateUser:
		h.users = append(h.users, c.ID)
	case domain.CreateClient:
		h.clients = append(h.clients, c.ID)
	case domain.RegisterClient:
		h.clients = append(h.clients, c.ID)
	case domain.CreateMapping:
		h.mappings = append(h.mappings, c.ID)
	case domain.RedeemShare:
		h.mappings = append(h.mappings, c.MappingID)
	case domain.ClaimClient:
		h.clients = append(h.clients, c.NewID)
	case domain.CreateKey:
		h.keys = append(h.keys, c.ID)
	case domain.BeginLogin:
		h.logins = append(h.logins, c.ID)
	case domain.CreateShare:
		h.shares = append(h.shares, c.ID)
	case domain.CreateInvite:
		h.invites = append(h.invites, c.ID)
	case domain.CreateDomain:
		h.domains = append(h.domains, c.ID)
	case domain.RedeemInvite:
		h.clients = append(h.clients, c.ClientID)
	case domain.CreateWebhook:
		h.webhooks = append(h.webhooks, c.ID)
	}
	return true
}

func (h *History) command() domain.Command {
	text := func(prefix string) *string { s := fmt.Sprintf("%s%d", prefix, h.draw(1000)); return &s }
	if h.draw(4) == 0 && len(h.users) > 0 && len(h.clients) > 0 {
		return h.identity()
	}
	switch n := h.draw(100); {
	case n < 12 || len(h.users) == 0:
		return h.createUser()
	case n < 32 || len(h.clients) == 0:
		return h.createClient()
	case n < 60:
		return h.createMapping()
	case n < 64:
		return domain.ChangeUser{ID: pick(h, h.users), Username: text("name"), Email: text("a@b")}
	case n < 67:
		return domain.SetUserEnabled{ID: pick(h, h.users), Enabled: h.draw(2) == 0}
	case n < 69:
		if h.draw(2) == 0 {
			return domain.EraseUser{ID: pick(h, h.users)}
		}
		return domain.DeleteUser{ID: pick(h, h.users)}
	case n < 73:
		return domain.ChangeClient{ID: pick(h, h.clients), Name: text("client")}
	case n < 75:
		if h.draw(2) == 0 {
			return domain.AnnounceKey{ID: pick(h, h.clients), StaticKey: h.key()}
		}
		return domain.RotateCredential{ID: pick(h, h.clients), PublicKey: h.key()}
	case n < 78:
		return domain.SetClientEnabled{ID: pick(h, h.clients), Enabled: h.draw(2) == 0}
	case n < 81:
		return domain.DeleteClient{ID: pick(h, h.clients)}
	case n < 87:
		port := 1 + h.draw(65535)
		return domain.ChangeMapping{ID: pick(h, h.mappings), Patch: domain.Patch{"target_port": fmt.Append(nil, port), "name": fmt.Appendf(nil, "%q", *text("m"))}}
	case n < 92:
		return domain.SetMappingEnabled{ID: pick(h, h.mappings), Enabled: h.draw(2) == 0}
	case n < 96:
		return domain.DeleteMapping{ID: pick(h, h.mappings)}
	default:
		return domain.SetQuota{ID: pick(h, append(h.users[:len(h.users):len(h.users)], h.clients...)), Limits: h.limits()}
	}
}

// identity draws a command about identities and rights.
func (h *History) identity() domain.Command {
	hash := make([]byte, 32)
	switch h.draw(25) {
	case 0:
		return domain.CreateKey{ID: h.id(0), UserID: pick(h, append([]int64{0}, h.users...)), Prefix: "tnk", Hash: hash, Scopes: []domain.Scope{domain.ScopeRead}}
	case 1:
		return domain.RevokeKey{ID: pick(h, h.keys)}
	case 2:
		password := "$hash"
		return domain.ChangeUser{ID: pick(h, h.users), PasswordHash: &password}
	case 3:
		return domain.BeginLogin{ID: h.id(0), UserID: pick(h, h.users), PasswordHash: "$hash", Family: hash, Hash: hash, ExpiresAt: epoch.AddDate(9, 0, 0)}
	case 4:
		return domain.RefreshLogin{ID: pick(h, h.logins), Family: hash, Hash: hash, Next: hash, ExpiresAt: epoch.AddDate(9, 0, 0), At: epoch}
	case 5:
		return domain.EndLogin{ID: pick(h, h.logins), Reason: domain.EndLogout}
	case 6:
		return domain.SetUserRole{ID: pick(h, h.users), Role: domain.RoleAdmin}
	case 7:
		return domain.SetUserPlan{ID: pick(h, h.users), Plan: "pro", Limits: h.limits()}
	case 8:
		target := pick(h, h.clients)
		cl, _ := h.log.client(target)
		if cl == nil {
			cl = &domain.Client{}
		}
		return domain.CreateShare{ID: h.id(0), UserID: cl.UserID, TargetClientID: target, Protocol: domain.ProtocolTCP,
			Service: domain.Service{TargetHost: "db", TargetPort: 1}, Hash: hash, MaxUses: int64(1 + h.draw(3))}
	case 9:
		return domain.RevokeShare{ID: pick(h, h.shares)}
	case 10:
		return domain.RedeemShare{ID: pick(h, h.shares), Hash: hash, MappingID: h.id(domain.FirstMappingID), Any: true,
			SourceClientID: pick(h, h.clients), Origin: domain.Origin{LocalPort: 1 + h.draw(65535)}}
	case 16:
		return domain.DisconnectClient{ID: pick(h, h.clients), Nodes: []string{"node-001"}, Epoch: int64(h.draw(9))}
	case 17:
		return domain.DrainNode{ID: int64(1 + h.draw(3)), Since: epoch.Add(time.Duration(h.draw(3)) * time.Hour)}
	case 18:
		return domain.CreateInvite{ID: h.id(0), UserID: pick(h, h.users), Name: "n", Hash: hash, MaxUses: int64(1 + h.draw(3))}
	case 19:
		return domain.RevokeInvite{ID: pick(h, h.invites)}
	case 20:
		return domain.RedeemInvite{ID: pick(h, h.invites), Hash: hash, ClientID: h.id(domain.FirstClientID), PublicKey: h.key()}
	case 21, 22:
		return domain.CreateDomain{ID: h.id(0), UserID: pick(h, h.users), Host: fmt.Sprintf("h%d.example.org", h.draw(5)), Token: strings.Repeat("T", domain.DomainTokenLength)}
	case 23:
		return domain.VerifyDomain{ID: pick(h, h.domains)}
	case 24:
		return domain.DeleteDomain{ID: pick(h, h.domains)}
	case 11, 12:
		return domain.CreateWebhook{ID: h.id(0), UserID: pick(h, append([]int64{0}, h.users...)), URL: "https://example.org/hook", All: h.draw(2) == 0}
	case 13:
		url := fmt.Sprintf("https://example.org/%d", h.draw(1000))
		return domain.ChangeWebhook{ID: pick(h, h.webhooks), URL: &url, Events: &[]string{"mapping_*"}, Admin: true}
	case 14:
		switch id := pick(h, h.webhooks); h.draw(4) {
		case 0:
			return domain.DeleteWebhook{ID: id}
		case 1:
			return domain.RotateWebhookSecret{ID: id}
		default:
			return domain.SetWebhookEnabled{ID: id, Enabled: h.draw(2) == 0}
		}
	default:
		c := domain.ClaimClient{ID: pick(h, h.clients), NewID: h.id(domain.FirstClientID), UserID: pick(h, h.users)}
		if cl, ok := h.log.client(c.ID); ok {
			c.PublicKey = cl.PublicKey
		}
		return c
	}
}

func (h *History) createUser() domain.Command {
	id := h.id(domain.FirstUserID)
	return domain.CreateUser{ID: id, Username: fmt.Sprintf("user%d", id), Email: fmt.Sprintf("u%d@example.org", id), Limits: h.limits()}
}

func (h *History) createClient() domain.Command {
	if h.draw(3) == 0 {
		return domain.RegisterClient{ID: h.id(domain.FirstAnonymousID), PublicKey: h.key()}
	}
	return domain.CreateClient{ID: h.id(domain.FirstClientID), UserID: pick(h, h.users), Name: "client", PublicKey: h.key()}
}

// createMapping prefers a user and clients that fit together; otherwise nearly all
// commands would be refused.
func (h *History) createMapping() domain.Command {
	c := domain.CreateMapping{ID: h.id(domain.FirstMappingID), Any: true, Protocol: domain.ProtocolTCP, UserID: pick(h, h.users),
		SourceClientID: pick(h, h.clients), TargetClientID: pick(h, h.clients), Parts: domain.Parts{
			Origin:  domain.Origin{LocalPort: 1 + h.draw(65535)},
			Service: domain.Service{TargetHost: "db.internal", TargetPort: 1 + h.draw(65535)}}}
	for _, id := range []int64{c.SourceClientID, c.TargetClientID} {
		if cl, ok := h.log.client(id); ok && cl.UserID != 0 {
			c.UserID = cl.UserID
			break
		}
	}
	if h.draw(3) == 0 {
		c.TargetClientID = c.SourceClientID
	}
	return c
}

func (l *Log) client(id int64) (*domain.Client, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.states[domain.ClientStream(id)].(*domain.Client)
	return c, ok
}

func (h *History) key() []byte {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(h.draw(256))
	}
	return key
}

func (h *History) limits() domain.Limits {
	var l domain.Limits
	if h.draw(4) == 0 {
		n := int64(h.draw(20))
		l.MaxMappings = &n
	}
	return l
}
