package control

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// standingAge is how long a control plane uses what it knows of a node. After a
// revocation at another control plane the node is refused this much later at most.
const standingAge = 500 * time.Millisecond

const (
	// maxStanding bounds the nodes in one question.
	maxStanding = 1000
	// maxJudged bounds the nodes that are remembered: a node may ask about ids that are
	// nobody's.
	maxJudged = 4 * maxStanding
)

// joining is what a node asks for a certificate with.
type joining struct {
	node   string
	proved []byte   // the key of its present certificate; nil = it has a join token
	names  []string // to register; nil = those before
	token  string   // of a token for one use
}

func keyOf(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

// nodeNumber gives the number in a node's id.
func nodeNumber(node string) (int64, error) {
	stream, err := domain.ParseStreamID(node)
	if err != nil || stream.Category() != domain.CategoryNode {
		return 0, invalid("node", "must be a node id, for example node-001")
	}
	return stream.Number(), nil
}

// certifyNode signs the key of a request when the log lets that key be the node.
func (s *Server) certifyNode(ctx context.Context, request []byte, who joining) (*controlpb.Certificate, error) {
	leaf, err := s.signNode(ctx, request, who)
	return s.certified(leaf, err)
}

func (s *Server) signNode(ctx context.Context, request []byte, who joining) (*x509.Certificate, error) {
	if err := s.admit(ctx, who.node); err != nil {
		return nil, err
	}
	leaf, err := s.config.Authority.SignNode(request, who.node)
	if err != nil {
		return nil, err
	}
	// Nobody gets the certificate before the log has it.
	return leaf, s.record(ctx, leaf, who)
}

func (s *Server) record(ctx context.Context, leaf *x509.Certificate, who joining) error {
	number, err := nodeNumber(who.node)
	if err != nil {
		return err
	}
	allowed := "join token"
	if who.proved != nil {
		allowed = "node certificate"
	}
	command := domain.CertifyNode{ID: number, Key: keyOf(leaf), Proved: who.proved, Names: who.names, Token: who.token,
		Until: leaf.NotAfter, At: s.config.Now().UTC()}
	_, err = s.config.Executor.Submit(ctx, domain.Submission{Command: command, Meta: domain.Metadata{At: command.At,
		Actor: string(domain.NodeStream(number)), Command: command.CommandName(), Source: bounded(addressOf(ctx)), Allowed: allowed}})
	if domain.CodeOf(err) == domain.CodeJoinTokenUsed {
		err = &domain.Error{Code: domain.CodeJoinTokenUsed, Message: "This join token was for one use, and was used. Make another one: tunnoxd node-token."}
	}
	if domain.CodeOf(err) != "" && domain.CodeOf(err) != domain.CodeStoreUnavailable {
		s.config.Metrics.refused.WithLabelValues("node").Inc()
		s.config.Logger.Warn("a node was not given a certificate", "node", who.node, "from", addressOf(ctx), "error", err)
	}
	return err
}

// OwnNode makes an identity of a node in the process that has the authority. It is bound
// to its key as others are.
func (s *Server) OwnNode(ctx context.Context, node string, current *Issued) (Issued, error) {
	request, key, err := newRequest(nil)
	if err != nil {
		return Issued{}, err
	}
	who := joining{node: node}
	if current != nil {
		who.proved = keyOf(current.Certificate.Leaf)
	}
	leaf, err := s.signNode(ctx, request, who)
	if err != nil {
		return Issued{}, err
	}
	return s.config.Authority.issued(leaf, key), nil
}

// nodeState gives what the log says of a node now.
func (s *Server) nodeState(ctx context.Context, node string) (*domain.Node, error) {
	number, err := nodeNumber(node)
	if err != nil {
		return nil, err
	}
	head, err := s.config.Head(ctx)
	if err != nil {
		return nil, err
	}
	n, _, err := foldOf[*domain.Node](ctx, s.folds, domain.NodeStream(number), head)
	return n, err
}

// registered refuses names for agents that are not the node's. The first names of a node
// that has none are registered.
func (s *Server) registered(ctx context.Context, from *caller, names []string) error {
	n, err := s.nodeState(ctx, from.node)
	if err != nil {
		return err
	}
	if n.Names == nil {
		return s.record(ctx, from.certificate, joining{node: from.node, proved: keyOf(from.certificate), names: names})
	}
	refusal := &domain.Error{Code: domain.CodeNodeName, Message: fmt.Sprintf("%s has the names %s and no others. A node registers names when it joins, with a join token.", from.node, strings.Join(n.Names, ", "))}
	for _, name := range names {
		if !slices.Contains(n.Names, name) {
			refusal.Faults = append(refusal.Faults, domain.Fault{Field: name, Message: "is not a name of this node"})
		}
	}
	if len(refusal.Faults) == 0 {
		return nil
	}
	s.config.Metrics.refused.WithLabelValues("name").Inc()
	s.config.Logger.Warn("a node asks for a certificate of names that are not its own", "node", from.node, "error", refusal)
	return refusal
}

// namesOf gives the host names and addresses of a request, as they are registered.
func namesOf(request []byte) ([]string, error) {
	r, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	return sortedNames(r.DNSNames, r.IPAddresses), nil
}

func sortedNames(hosts []string, addresses []net.IP) []string {
	names := slices.Clone(hosts)
	for _, a := range addresses {
		names = append(names, a.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// standing remembers for a moment which nodes were revoked: every call asks.
type standing struct {
	mu    sync.Mutex
	nodes map[string]*judged // guarded by mu
}

type judged struct {
	mu      sync.Mutex // held while the log is read
	revoked bool       // guarded by mu
	readAt  time.Time  // guarded by mu
}

// revoked reports whether a node was revoked. While the log cannot be read it is as it
// was: who is served goes on being served.
func (s *Server) revoked(ctx context.Context, node string) bool {
	s.standing.mu.Lock()
	if s.standing.nodes == nil {
		s.standing.nodes = map[string]*judged{}
	}
	j := s.standing.nodes[node]
	if j == nil {
		if len(s.standing.nodes) >= maxJudged {
			clear(s.standing.nodes) // they are read again, which costs less than to sort them
		}
		j = &judged{}
		s.standing.nodes[node] = j
	}
	s.standing.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if now := time.Now(); now.Sub(j.readAt) >= standingAge {
		n, err := s.nodeState(ctx, node)
		switch {
		case err == nil:
			j.revoked, j.readAt = n.Revoked, now
		case ctx.Err() == nil:
			j.readAt = now
			s.config.Logger.Debug("whether a node was revoked cannot be read now", "node", node, "error", err)
		}
	}
	return j.revoked
}

// Standing tells which of some nodes were revoked.
func (s *state) Standing(ctx context.Context, in *controlpb.StandingRequest) (*controlpb.StandingAnswer, error) {
	if len(in.Nodes) > maxStanding {
		return nil, invalid("nodes", fmt.Sprintf("must be at most %d, are %d", maxStanding, len(in.Nodes)))
	}
	revoked, err := s.Revoked(ctx, in.Nodes...)
	return &controlpb.StandingAnswer{Revoked: revoked}, err
}

// Revoked gives those of some nodes that were revoked.
func (s *Server) Revoked(ctx context.Context, nodes ...string) (revoked []string, err error) {
	for _, node := range nodes {
		if _, err := nodeNumber(node); err != nil {
			return nil, err
		}
		if s.revoked(ctx, node) {
			revoked = append(revoked, node)
		}
	}
	return revoked, nil
}
