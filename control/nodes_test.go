package control

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// TestANodeIDBelongsToItsKey: who has the join token does not become a node that is
// there, and gets its names from nobody else.
func TestANodeIDBelongsToItsKey(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	ctx := t.Context()
	honest := p.enroller(s.address)
	honest.Names = []string{"fra1.example.org", "192.0.2.7"}
	first, err := honest.Issue(ctx, nil)
	must(t, err)

	thief := p.enroller(s.address)
	_, err = thief.Issue(ctx, nil)
	wantCode(t, err, domain.CodeNodeTaken)
	// An answer that was lost is asked for again, by the same process.
	must(t, second(honest.Issue(ctx, nil)))

	// As another node the thief signs for no name of the first.
	thief.Node, thief.Names = "node-002", []string{"fra2.example.org"}
	other, err := thief.Issue(ctx, nil)
	must(t, err)
	as := func(i Issued) *Client { return p.dial([]string{s.address}, func(c *Config) { c.Trust = fixed(i) }) }
	must(t, second(as(other).Certify(ctx, "fra2.example.org")))
	for _, names := range [][]string{{"fra1.example.org"}, {"fra2.example.org", "192.0.2.7"}} {
		_, err = as(other).Certify(ctx, names...)
		wantCode(t, err, domain.CodeNodeName)
	}
	must(t, second(as(first).Certify(ctx, "fra1.example.org", "192.0.2.7")))

	// New names need the join token again, and the key.
	honest.Names = []string{"fra3.example.org"}
	must(t, second(honest.Register(ctx, first)))
	_, err = as(first).Certify(ctx, "fra1.example.org")
	wantCode(t, err, domain.CodeNodeName)
	must(t, second(as(first).Certify(ctx, "fra3.example.org")))

	// A renewed certificate is for another key, and the one before goes on.
	next, err := as(first).Renew(ctx)
	must(t, err)
	must(t, second(as(next).Renew(ctx)))
	must(t, second(as(first).Renew(ctx)))
	thief.Node = "node-001"
	_, err = thief.Issue(ctx, nil)
	wantCode(t, err, domain.CodeNodeTaken)
	// When all have ended the id is free.
	p.clock.advance(49 * time.Hour)
	must(t, second(thief.Issue(ctx, nil)))
}

// TestARevokedNodeIsRefused: at every call, on a connection that it has, and when it
// asks again; others hear of it.
func TestARevokedNodeIsRefused(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	ctx := t.Context()
	issued, err := p.enroller(s.address).Issue(ctx, nil)
	must(t, err)
	node := p.dial([]string{s.address}, func(c *Config) { c.Trust = fixed(issued) })
	must(t, second(node.Ping(ctx)))
	peer := p.dial([]string{s.address}, func(c *Config) { c.Trust = p.trust("node-002") })
	if revoked, err := peer.Revoked(ctx, "node-001", "node-002"); err != nil || len(revoked) > 0 {
		t.Errorf("revoked are %v, %v", revoked, err)
	}

	p.submit(domain.RevokeNode{ID: 1})
	began := time.Now()
	for code := domain.Code(""); code != domain.CodeNodeRevoked; {
		if _, err = node.Ping(ctx); err != nil {
			code = domain.CodeOf(err)
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("a revoked node is answered: %v", err)
		}
	}
	t.Logf("refused after %v", time.Since(began).Round(time.Millisecond))
	_, err = node.Renew(ctx)
	wantCode(t, err, domain.CodeNodeRevoked)
	_, err = node.Certify(ctx, "localhost")
	wantCode(t, err, domain.CodeNodeRevoked)
	_, err = p.enroller(s.address).Issue(ctx, nil)
	wantCode(t, err, domain.CodeNodeRevoked)
	_, err = p.enroller(s.address).Issue(ctx, &issued)
	wantCode(t, err, domain.CodeNodeRevoked)
	if revoked, err := peer.Revoked(ctx, "node-001", "node-002"); err != nil || !slices.Equal(revoked, []string{"node-001"}) {
		t.Errorf("revoked are %v, %v", revoked, err)
	}
	p.clock.advance(100 * time.Hour)
	_, err = p.enroller(s.address).Issue(ctx, nil)
	wantCode(t, err, domain.CodeNodeRevoked)
}

// TestManyNodesAreAskedAbout: a node with more peers than one question takes asks several,
// and ids that are nobody's fill no memory.
func TestManyNodesAreAskedAbout(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	ctx := t.Context()
	_, err := p.enroller(s.address).Issue(ctx, nil)
	must(t, err)
	p.submit(domain.RevokeNode{ID: 1})
	peer := p.dial([]string{s.address}, func(c *Config) { c.Trust = p.trust("node-002") })
	var nodes []string
	for i := range maxJudged + maxStanding {
		nodes = append(nodes, string(domain.NodeStream(int64(i+1000))))
	}
	nodes = append(nodes, "node-001") // in the last question
	revoked, err := peer.Revoked(ctx, nodes...)
	if err != nil || !slices.Equal(revoked, []string{"node-001"}) {
		t.Errorf("revoked are %v, %v", revoked, err)
	}
	s.standing.mu.Lock()
	n := len(s.standing.nodes)
	s.standing.mu.Unlock()
	if n > maxJudged {
		t.Errorf("%d nodes are remembered, want at most %d", n, maxJudged)
	}
	if _, err := peer.state.Standing(ctx, &controlpb.StandingRequest{Nodes: nodes}); err == nil {
		t.Error("a question about too many nodes is answered")
	}
}

// TestJoinTokensWithLimits: one use is one node's, a time ends, a rotation ends them, and
// a changed bit is no token.
func TestJoinTokensWithLimits(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	ctx := t.Context()
	with := func(node string, token JoinToken) error {
		e := p.enroller(s.address)
		e.Node, e.Token = node, func() (JoinToken, error) { return token, nil }
		return second(e.Issue(context.WithoutCancel(ctx), nil))
	}
	once, err := p.tokens.Pass(ctx, Pass{Once: true})
	must(t, err)
	if read, err := ParseJoinToken(once.Text()); err != nil || read != once {
		t.Errorf("read as %v, %v", read, err)
	}
	must(t, with("node-001", once))
	wantCode(t, with("node-002", once), domain.CodeJoinTokenUsed)
	p.clock.advance(100 * time.Hour) // the id is free now, and the token is used up all the same
	wantCode(t, with("node-001", once), domain.CodeJoinTokenUsed)

	hour, err := p.tokens.Pass(ctx, Pass{Expires: p.clock.Now().Add(time.Hour)})
	must(t, err)
	must(t, with("node-003", hour))
	must(t, with("node-004", hour))
	forged := hour
	forged.secret[9] ^= 0x40 // a later end
	wantCode(t, with("node-005", forged), codeJoinRefused)
	forged = once
	forged.secret[12] = 0 // for any number of uses
	wantCode(t, with("node-005", forged), codeJoinRefused)
	p.clock.advance(61 * time.Minute)
	wantCode(t, with("node-005", hour), codeJoinRefused)

	next, err := p.tokens.Pass(ctx, Pass{Once: true})
	must(t, err)
	must(t, second(p.tokens.Rotate(ctx)))
	wantCode(t, with("node-006", next), codeJoinRefused)
}
