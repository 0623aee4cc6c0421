package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

const (
	maxWants     = 1000 // clients in one call
	viewsAtOnce  = 8    // of one such call, read at a time
	maxKeyLength = 200
	keptAtOnce   = 8 // views that are being kept for others
	keepTime     = time.Second
)

// state answers nodes.
type state struct {
	controlpb.UnimplementedStateServer
	*Server
}

// enrollment answers strangers.
type enrollment struct {
	controlpb.UnimplementedEnrollmentServer
	*Server
}

// Enroll gives a node its first certificate.
func (e *enrollment) Enroll(ctx context.Context, in *controlpb.EnrollRequest) (*controlpb.Certificate, error) {
	token, err := e.config.JoinTokens.admit(ctx, in.Secret)
	if err != nil {
		e.config.Metrics.refused.WithLabelValues("join_token").Inc()
		e.config.Logger.Warn("a node was not let in", "node", text(in.Node), "from", addressOf(ctx), "error", err)
		return nil, err
	}
	answer, err := e.certifyNode(ctx, in.Request, joining{node: in.Node, names: in.Names, token: token})
	if err == nil {
		e.config.Logger.Info("node enrolled", "node", in.Node, "from", addressOf(ctx))
	}
	return answer, err
}

func addressOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

func (s *Server) admit(ctx context.Context, node string) error {
	if s.config.Admit == nil {
		return nil
	}
	err := s.config.Admit(ctx, node, addressOf(ctx))
	if err == nil || domain.CodeOf(err) != "" {
		return err
	}
	return fmt.Errorf("%w: %w", &domain.Error{Code: codeJoinRefused, Message: "This node is not let in."}, err)
}

func (s *Server) certified(leaf *x509.Certificate, err error) (*controlpb.Certificate, error) {
	if err != nil {
		return nil, err
	}
	authority := s.config.Authority.Certificate().Raw
	return &controlpb.Certificate{Chain: [][]byte{leaf.Raw, authority}, Authorities: [][]byte{authority}}, nil
}

// Renew gives the calling node a new certificate, for the id it has.
func (s *state) Renew(ctx context.Context, in *controlpb.CertificateRequest) (*controlpb.Certificate, error) {
	from, err := s.callerOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.certifyNode(ctx, in.Request, joining{node: from.node, proved: keyOf(from.certificate)})
}

// Certify gives the calling node a certificate for its agents, for names that are registered
// for the node.
func (s *state) Certify(ctx context.Context, in *controlpb.CertificateRequest) (*controlpb.Certificate, error) {
	from, err := s.callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.admit(ctx, from.node); err != nil {
		return nil, err
	}
	names, err := namesOf(in.Request)
	if err != nil {
		return nil, err
	}
	leaf, err := s.config.Authority.SignAgents(in.Request)
	if err != nil {
		return nil, err
	}
	if err := s.registered(ctx, from, names); err != nil {
		return nil, err
	}
	return s.certified(leaf, err)
}

// Ping reads the head of the log: who is answered can have commands decided.
func (s *state) Ping(ctx context.Context, _ *controlpb.PingRequest) (*controlpb.PingAnswer, error) {
	head, err := s.config.Head(ctx)
	if err != nil {
		return nil, err
	}
	return &controlpb.PingAnswer{Position: int64(head)}, nil
}

// ClientView gives one view.
func (s *state) ClientView(ctx context.Context, in *controlpb.Want) (*controlpb.View, error) {
	v, err := s.view(ctx, in, func() (domain.Position, error) { return s.config.Head(ctx) })
	if err != nil {
		return nil, err
	}
	return viewMessage(v)
}

// Clients gives several; that one of them cannot be had is said in its place.
func (s *state) Clients(in *controlpb.ClientsRequest, out controlpb.State_ClientsServer) error {
	if len(in.Wants) > maxWants {
		return invalid("wants", fmt.Sprintf("must be at most %d, are %d", maxWants, len(in.Wants)))
	}
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	var (
		asking sync.WaitGroup
		slots  = make(chan struct{}, viewsAtOnce)
		head   = sync.OnceValues(func() (domain.Position, error) { return s.config.Head(ctx) })
		mu     sync.Mutex // held while sending
		failed error      // the first that is not of one client but of the service; guarded by mu
	)
	for _, want := range in.Wants {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			answer, err := s.answer(ctx, want, head)
			mu.Lock()
			defer mu.Unlock()
			if failed == nil && err == nil {
				err = out.Send(answer)
			}
			if failed == nil && err != nil {
				failed = err
				cancel()
			}
		})
	}
	asking.Wait()
	return failed
}

// answer is a view or that there is no such client; an error is of the service.
func (s *Server) answer(ctx context.Context, want *controlpb.Want, head func() (domain.Position, error)) (_ *controlpb.ClientAnswer, err error) {
	defer func() {
		if p := recover(); p != nil { // of a goroutine of its own, which would end the process
			s.config.Metrics.panics.Inc()
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := s.view(ctx, want, head)
	refusal, refused := errors.AsType[*domain.Error](err)
	switch {
	case err == nil:
		message, err := viewMessage(v)
		if err != nil {
			return nil, err
		}
		return &controlpb.ClientAnswer{ClientId: want.ClientId, Answer: &controlpb.ClientAnswer_View{View: message}}, nil
	case refused && refusal.Code == domain.CodeClientNotFound:
		return &controlpb.ClientAnswer{ClientId: want.ClientId, Answer: &controlpb.ClientAnswer_Refusal{Refusal: refusalOf(refusal)}}, nil
	}
	return nil, err
}

// view asks the read models first. What they cannot tell, because they are away,
// behind or empty, the log can: a client that they do not have may have been
// flushed.
func (s *Server) view(ctx context.Context, want *controlpb.Want, logHead func() (domain.Position, error)) (domain.ClientView, error) {
	id, min := want.ClientId, domain.Position(want.MinPosition)
	if s.config.Views != nil && s.calm.allow() {
		bounded, cancel := context.WithTimeout(ctx, s.config.ViewsWait)
		v, err := s.config.Views.ClientView(bounded, id, min)
		cancel()
		if ctx.Err() != nil {
			s.calm.abandon()
			return domain.ClientView{}, ctx.Err()
		}
		s.calm.report(err == nil || domain.CodeOf(err) != "")
		if err == nil && v.Position >= min && (v.Client.State.Live() || v.Client.State.ClaimedAs != 0) {
			s.config.Metrics.views.WithLabelValues("read_model").Inc()
			return v, nil
		}
	}
	head, err := logHead()
	if err != nil {
		return domain.ClientView{}, err
	}
	if head < min {
		return domain.ClientView{}, &domain.Error{Code: domain.CodeStoreUnavailable,
			Message: fmt.Sprintf("The log has not reached position %d.", min)}
	}
	v, err := s.folds.view(ctx, id, head)
	if err != nil {
		return domain.ClientView{}, err
	}
	s.config.Metrics.views.WithLabelValues("log").Inc()
	s.keep(v)
	return v, nil
}

// keep has other forwarders find a view that had to be folded from the log. Nobody
// waits for it, and while as many are being kept as may be, one more is not.
func (s *Server) keep(v domain.ClientView) {
	if s.config.Keep == nil {
		return
	}
	select {
	case s.keeping <- struct{}{}:
	default:
		return
	}
	s.kept.Go(func() {
		defer func() { <-s.keeping }()
		ctx, cancel := context.WithTimeout(context.Background(), keepTime)
		defer cancel()
		if err := s.config.Keep(ctx, lean(v)); err != nil {
			s.config.Logger.Warn("a client's view cannot be kept for other forwarders", "client", v.Client.State.ID, "error", err)
		}
	})
}
