package control

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/usage"
)

// Usage counts reports of usage, each once.
type Usage interface {
	Report(ctx context.Context, r usage.Report) (usage.Answer, error)
}

// ReportUsage counts a report of the calling node.
func (s *state) ReportUsage(ctx context.Context, in *controlpb.UsageReport) (*controlpb.UsageAnswer, error) {
	from, err := s.callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if s.config.Usage == nil {
		return nil, status.Error(codes.Unimplemented, "This control plane counts no usage.")
	}
	report := reportOf(in)
	// The numbers of a report belong to the calling node, whatever name it gives.
	report.Node, report.Reporter = from.node, from.node+"/"+report.Reporter
	if err := report.Check(); err != nil {
		return nil, invalid("report", err.Error())
	}
	if report.Lines, err = s.charged(ctx, from.node, report.Lines); err != nil {
		return nil, unwritten(ctx, err)
	}
	answer, err := s.config.Usage.Report(ctx, report)
	if err != nil {
		return nil, unwritten(ctx, err)
	}
	return answerMessage(answer), nil
}

// charged sets the payer of each line as the log says. A forwarder knows what a mapping
// carried, and it could name any payer. Lines without traffic are left out. The ends of
// a mapping change rarely, so the log is read for a mapping when it is reported for the
// first time, and when log and forwarder disagree.
func (s *state) charged(ctx context.Context, node string, lines []usage.Line) ([]usage.Line, error) {
	kept := lines[:0]
	var head domain.Position
	for _, line := range lines {
		stream := domain.MappingStream(line.Mapping)
		m, _, err := foldOf[*domain.Mapping](ctx, s.folds, stream, 0)
		if err != nil {
			return nil, err
		}
		if !concerns(line, m) {
			if head == 0 {
				if head, err = s.config.Head(ctx); err != nil {
					return nil, err
				}
			}
			if m, _, err = foldOf[*domain.Mapping](ctx, s.folds, stream, head); err != nil {
				return nil, err
			}
		}
		if !concerns(line, m) {
			s.config.Metrics.refused.WithLabelValues("usage").Inc()
			s.config.Logger.Warn("a node reports usage for others than the log says", "node", node, "mapping", line.Mapping,
				"account", line.Account, "source", line.Source, "target", line.Target)
		}
		if m.Exists() {
			line.Account, line.Source, line.Target = m.UserID, m.SourceClientID, m.TargetClientID
			kept = append(kept, line)
		}
	}
	return kept, nil
}

func concerns(line usage.Line, m *domain.Mapping) bool {
	return m.Exists() && line.Account == m.UserID && line.Source == m.SourceClientID && line.Target == m.TargetClientID
}

// unwritten is the error of a report that was not counted. The node sends the report
// again. The database's error is for the log of this side.
func unwritten(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &uncounted{err}
}

// uncounted is sent as a store that is unavailable.
type uncounted struct{ err error }

func (u *uncounted) Error() string { return u.err.Error() }

func (u *uncounted) Unwrap() []error {
	return []error{&domain.Error{Code: domain.CodeStoreUnavailable, Message: "Usage cannot be counted now."}, u.err}
}

// ReportUsage sends a report to be counted, and gives what the limits leave. It may be
// repeated with the same report.
func (c *Client) ReportUsage(ctx context.Context, r usage.Report) (answer usage.Answer, err error) {
	request := reportMessage(r)
	err = c.do(ctx, "ReportUsage", func(ctx context.Context) error {
		m, err := c.state.ReportUsage(ctx, request)
		if err == nil {
			answer = answerOf(m)
		}
		return err
	})
	return answer, err
}

func reportMessage(r usage.Report) *controlpb.UsageReport {
	m := &controlpb.UsageReport{Reporter: text(r.Reporter), Sequence: r.Sequence, SpanMillis: r.Span.Milliseconds(),
		Mappings: r.Mappings, Last: r.Last}
	for _, l := range r.Lines {
		m.Lines = append(m.Lines, &controlpb.UsageLine{Mapping: l.Mapping, Account: l.Account, Source: l.Source, Target: l.Target,
			ToTarget: l.ToTarget, ToSource: l.ToSource, Streams: l.Streams, Open: l.Open})
	}
	for _, a := range r.Asks {
		m.Asks = append(m.Asks, &controlpb.UsageAsk{Account: a.Account, Demand: a.Demand})
	}
	return m
}

func reportOf(m *controlpb.UsageReport) usage.Report {
	r := usage.Report{Reporter: m.GetReporter(), Sequence: m.GetSequence(), Span: time.Duration(m.GetSpanMillis()) * time.Millisecond,
		Mappings: m.GetMappings(), Last: m.GetLast()}
	for _, l := range m.GetLines() {
		r.Lines = append(r.Lines, usage.Line{Mapping: l.GetMapping(), Account: l.GetAccount(), Source: l.GetSource(), Target: l.GetTarget(),
			Traffic: usage.Traffic{ToTarget: l.GetToTarget(), ToSource: l.GetToSource(), Streams: l.GetStreams()}, Open: l.GetOpen()})
	}
	for _, a := range m.GetAsks() {
		r.Asks = append(r.Asks, usage.Ask{Account: a.GetAccount(), Demand: a.GetDemand()})
	}
	return r
}

func answerMessage(a usage.Answer) *controlpb.UsageAnswer {
	m := &controlpb.UsageAnswer{Duplicate: a.Duplicate}
	for _, as := range a.Accounts {
		m.Accounts = append(m.Accounts, &controlpb.UsageAccount{Account: as.Account, Used: as.Used,
			Resets: timestamppb.New(as.Resets), Fraction: as.Fraction})
	}
	for _, o := range a.Elsewhere {
		m.Elsewhere = append(m.Elsewhere, &controlpb.UsageOpen{Mapping: o.Mapping, Streams: o.Streams})
	}
	return m
}

func answerOf(m *controlpb.UsageAnswer) usage.Answer {
	a := usage.Answer{Duplicate: m.GetDuplicate()}
	for _, as := range m.GetAccounts() {
		a.Accounts = append(a.Accounts, usage.Account{Account: as.GetAccount(), Used: as.GetUsed(),
			Resets: as.GetResets().AsTime(), Fraction: as.GetFraction()})
	}
	for _, o := range m.GetElsewhere() {
		a.Elsewhere = append(a.Elsewhere, usage.Open{Mapping: o.GetMapping(), Streams: o.GetStreams()})
	}
	return a
}
