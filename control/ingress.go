package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// maxHostLength bounds a public host, RFC 1035.
const maxHostLength = 253

// The view of an ingress goes the way of a client's, except that nobody remembers it:
// a forwarder asks for its ports when it starts and after a gap in the feed, for a host
// when a visitor does, and holds what it was told.

// IngressView gives all that is needed to serve what comes in at an ingress, not
// older than min: from the read model, or from the State service.
func (l *Lookup) IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	err := unreachable(errors.New("there is no read model"))
	var v domain.IngressView
	if l.config.ReadModel != nil {
		if v, err = l.readIngress(ctx, what, min); err == nil {
			l.config.Metrics.lookups.WithLabelValues("read_model").Inc()
			return leanIngress(v), nil
		}
	}
	if l.config.Remote == nil || ctx.Err() != nil {
		return v, err
	}
	v, err = l.config.Remote.IngressView(ctx, what, min)
	if err == nil && v.Position < min {
		err = unreachable(errors.New("it gave a view that is too old"))
	}
	if err != nil {
		l.config.Metrics.misses.WithLabelValues("state", "away").Inc()
		return v, err
	}
	l.config.Metrics.lookups.WithLabelValues("state").Inc()
	return leanIngress(v), nil
}

// readIngress asks the read model, when it answers at all these days.
func (l *Lookup) readIngress(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	if !l.calm.allow() {
		return domain.IngressView{}, unreachable(errCircuit)
	}
	bounded, cancel := context.WithTimeout(ctx, l.config.ReadModelWait)
	defer cancel()
	v, err := l.config.ReadModel.IngressView(bounded, what, min)
	if err != nil && ctx.Err() != nil {
		l.calm.abandon()
		return v, ctx.Err()
	}
	l.calm.report(err == nil)
	if err == nil && v.Position < min {
		err = unreachable(errors.New("the read model is behind"))
	}
	return v, err
}

// IngressView gives all that is needed to serve what comes in at an ingress.
func (c *Client) IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (v domain.IngressView, err error) {
	err = c.do(ctx, "IngressView", func(ctx context.Context) error {
		answer, err := c.state.IngressView(ctx, &controlpb.IngressWant{FirstPort: int32(what.FirstPort), LastPort: int32(what.LastPort),
			Host: what.Host, MinPosition: int64(min)})
		if err == nil {
			v, err = domain.DecodeExchanged[domain.IngressView](int(answer.GetForm()), answer.GetView())
		}
		return err
	})
	return v, err
}

// IngressView gives the view of an ingress. What the read models cannot tell, the log
// can.
func (s *state) IngressView(ctx context.Context, in *controlpb.IngressWant) (*controlpb.View, error) {
	what := domain.Ingress{FirstPort: int(in.FirstPort), LastPort: int(in.LastPort), Host: in.Host}
	if what.FirstPort < 0 || what.LastPort < what.FirstPort || what.LastPort > 65535 {
		return nil, invalid("first_port", "must be a port, like last_port, and not above it")
	}
	if len(what.Host) > maxHostLength {
		return nil, invalid("host", fmt.Sprintf("must have up to %d characters, has %d", maxHostLength, len(what.Host)))
	}
	v, err := s.ingress(ctx, what, domain.Position(in.MinPosition))
	if err != nil {
		return nil, err
	}
	form, data, err := domain.EncodeExchanged(leanIngress(v))
	return &controlpb.View{Form: int32(form), View: data}, err
}

func (s *Server) ingress(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	if s.config.Views != nil && s.calm.allow() {
		bounded, cancel := context.WithTimeout(ctx, s.config.ViewsWait)
		v, err := s.config.Views.IngressView(bounded, what, min)
		cancel()
		if ctx.Err() != nil {
			s.calm.abandon()
			return domain.IngressView{}, ctx.Err()
		}
		s.calm.report(err == nil)
		if err == nil && v.Position >= min {
			s.config.Metrics.views.WithLabelValues("read_model").Inc()
			return v, nil
		}
	}
	head, err := s.config.Head(ctx)
	if err != nil {
		return domain.IngressView{}, err
	}
	if head < min {
		return domain.IngressView{}, &domain.Error{Code: domain.CodeStoreUnavailable,
			Message: fmt.Sprintf("The log has not reached position %d.", min)}
	}
	v, err := s.folds.ingress(ctx, what, head)
	if err == nil {
		s.config.Metrics.views.WithLabelValues("log").Inc()
	}
	return v, err
}

// ingress folds all that is needed to serve an ingress from the log itself, as it is
// at position p. Ports and hosts know which mappings have them.
func (f *folds) ingress(ctx context.Context, what domain.Ingress, p domain.Position) (domain.IngressView, error) {
	v := domain.IngressView{Position: p, Ingress: what}
	users, accounts := map[int64]bool{}, map[int64]bool{}
	ids, err := f.mappingsAt(ctx, what, p)
	if err != nil {
		return domain.IngressView{}, err
	}
	for _, id := range ids {
		m, version, err := foldOf[*domain.Mapping](ctx, f, domain.MappingStream(id), p)
		if err != nil {
			return domain.IngressView{}, err
		}
		if !m.Live() || !what.Has(m) {
			continue // deleted or moved since the port or host was read
		}
		v.Mappings = append(v.Mappings, domain.Versioned[domain.Mapping]{Version: version, State: *m})
		users[m.UserID] = true
		for _, account := range m.Accounts() {
			accounts[account] = true
		}
	}
	v.Users, v.Limits, err = f.accounts(ctx, users, accounts, p)
	return v, err
}

// mappingsAt gives the mappings that an ingress leads to.
func (f *folds) mappingsAt(ctx context.Context, what domain.Ingress, p domain.Position) (ids []int64, err error) {
	if what.Host != "" {
		host, err := used[*domain.Host](ctx, f, domain.HostStream(what.Host), p)
		if err != nil || host == nil {
			return nil, err
		}
		return host.Mappings(what.Host), nil
	}
	for number := what.FirstPort; number != 0 && number <= what.LastPort; number++ {
		port, err := used[*domain.Port](ctx, f, domain.PortStream(number), p)
		if err != nil {
			return nil, err
		}
		if port == nil {
			continue
		}
		for _, protocol := range slices.Sorted(maps.Keys(port.Uses)) {
			if id := port.Uses[protocol].MappingID; id != 0 {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil // a mapping may have several ports
}

// used folds a port or a host, the zero value for one that nobody ever had. Most of
// those that are asked for are such: they are looked at and not kept.
func used[A domain.Aggregate](ctx context.Context, f *folds, id domain.StreamID, p domain.Position) (none A, err error) {
	first, err := f.log.ReadStream(ctx, id, 0, 1)
	if err != nil {
		return none, fmt.Errorf("read event stream %s: %w", id, err)
	}
	if len(first) == 0 {
		return none, nil
	}
	state, _, err := foldOf[A](ctx, f, id, p)
	return state, err
}
