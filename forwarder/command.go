package forwarder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Commander executes what agents ask for. It decides what a client may do; that the
// client is who it says, its session has proved.
type Commander interface {
	Execute(ctx context.Context, c domain.ClientCommand) (domain.ClientResult, error)
}

const (
	commandsAtOnce = 8
	commandTimeout = 12 * time.Second // longer than a control plane takes to give up
	// Anybody may be an agent, and each command is work for a control plane, if only
	// to refuse it; those that are done are in the log for ever.
	commandsPerSecond, commandsInBurst = 10, 100
)

// command has one carried out beside the reading of the session.
func (s *session) command(m *wirepb.Command) error {
	if s.wishes == nil {
		s.wishes = rate.NewLimiter(commandsPerSecond, commandsInBurst)
	}
	if !s.wishes.Allow() {
		return s.send(resultOf(m, wire.TooMany, "too many commands, ask again in a moment"))
	}
	select {
	case s.commands <- struct{}{}:
	default:
		return s.send(resultOf(m, wire.TooMany, "too many commands at once"))
	}
	if !s.f.start(func() {
		defer func() { <-s.commands }()
		ctx, cancel := context.WithTimeout(s.f.ctx, commandTimeout)
		defer cancel()
		answer := s.execute(ctx, m)
		if s.f.ctx.Err() != nil {
			return // cut short by this forwarder's end: the agent asks again elsewhere
		}
		if err := s.send(answer); err != nil {
			s.log.Debug("an agent does not hear what came of its command", "error", err)
		}
	}) {
		<-s.commands // the forwarder ends
	}
	return nil
}

// execute gives the answer to a command.
func (s *session) execute(ctx context.Context, m *wirepb.Command) *wirepb.Control {
	c := domain.ClientCommand{ClientID: s.client, Key: m.GetKey(), Source: s.link.RemoteAddr().String(), Request: s.id}
	switch wish := m.GetCommand().(type) {
	case *wirepb.Command_CreateMapping:
		in := wish.CreateMapping
		options, err := domain.ParseOptions(in.GetOptions())
		if err != nil {
			return resultOf(m, wire.Code(domain.CodeOf(err)), err.Error())
		}
		parts := domain.Parts{Name: in.GetName(),
			Origin:  domain.Origin{LocalHost: in.GetLocalHost(), LocalPort: port(in.GetLocalPort())},
			Service: domain.Service{TargetHost: in.GetTargetHost(), TargetPort: port(in.GetTargetPort())}, Options: options}
		if err := addParts(&parts, in.GetParts()); err != nil {
			return resultOf(m, wire.Code(domain.CodeInvalid), err.Error())
		}
		c.Create = &domain.CreateMapping{SourceClientID: in.GetSourceClientId(), TargetClientID: in.GetTargetClientId(),
			Protocol: domain.Protocol(in.GetProtocol()), Parts: parts}
	case *wirepb.Command_CreateShare:
		in := wish.CreateShare
		var parts domain.Parts
		if err := addParts(&parts, in.GetParts()); err != nil {
			return resultOf(m, wire.Code(domain.CodeInvalid), err.Error())
		}
		c.Share = &domain.Sharing{Random: in.GetRandom(), Seconds: int64(in.GetExpiresSeconds()),
			Share: domain.CreateShare{Name: parts.Name, Protocol: domain.Protocol(in.GetProtocol()), Service: parts.Service, Options: parts.Options, MaxUses: int64(max(in.GetMaxUses(), 1))}}
	case *wirepb.Command_RevokeShare:
		c.Revoke = &domain.RevokeShare{ID: wish.RevokeShare.GetShareId()}
	case *wirepb.Command_ListClients:
		c.Clients = &domain.ClientPage{Name: wish.ListClients.GetName(), After: wish.ListClients.GetAfter(), Limit: int(min(wish.ListClients.GetLimit(), 1<<20))}
	case *wirepb.Command_RedeemShare:
		in := wish.RedeemShare
		c.Redeem = &domain.Redemption{Code: in.GetCode(), Look: in.GetLook(),
			Mapping: domain.RedeemShare{Name: in.GetName(), Held: in.GetHeld(), Origin: domain.Origin{LocalHost: in.GetLocalHost(), LocalPort: port(in.GetLocalPort())}}}
	case *wirepb.Command_DeleteMapping:
		c.Delete = &domain.DeleteMapping{ID: wish.DeleteMapping.GetMappingId()}
	case *wirepb.Command_ListMappings:
		c.List = &domain.MappingPage{After: wish.ListMappings.GetAfter(), Limit: int(min(wish.ListMappings.GetLimit(), 1<<20))}
	case *wirepb.Command_AnnounceKey:
		c.Announce = &domain.AnnounceKey{ID: s.client, StaticKey: wish.AnnounceKey.GetStaticKey()}
		c.Source, c.Request = "", "" // peers get the record with its proof, and may not see where this agent is
	case *wirepb.Command_ProveKeys:
		c.Prove = questionOf(wish.ProveKeys)
	default:
		return resultOf(m, wire.Malformed, "the command is none that this forwarder knows")
	}
	if s.f.commander == nil {
		return resultOf(m, unavailable, "this forwarder has no control plane")
	}
	r, err := s.f.commander.Execute(ctx, c)
	switch code := domain.CodeOf(err); {
	case err == nil:
	case code != "":
		s.f.metrics.commands.WithLabelValues("refused").Inc()
		return resultOf(m, wire.Code(code), err.Error())
	default:
		s.f.metrics.commands.WithLabelValues("failed").Inc()
		s.log.Warn("an agent's command failed", "error", err)
		return resultOf(m, unavailable, "the control plane cannot be reached; the command may have been executed, repeat it with the same key")
	}
	s.f.metrics.commands.WithLabelValues("done").Inc()
	answer := &wirepb.Result{Id: m.GetId(), Next: r.Next}
	for i, made := range r.Mappings {
		mapping := mappingMessage(made.State)
		if i < len(r.Public) {
			mapping.Public = r.Public[i]
		}
		answer.Mappings = append(answer.Mappings, mapping)
	}
	if h := r.Share; h != nil {
		answer.Share = &wirepb.Share{ShareId: h.ID, Code: r.Code}
		if !h.ExpiresAt.IsZero() {
			answer.Share.Expires = h.ExpiresAt.Unix()
		}
	}
	for _, c := range r.Clients {
		answer.Clients = append(answer.Clients, &wirepb.Client{ClientId: c.ID, Name: c.Name, Disabled: c.Disabled})
	}
	answer.Proofs = proofsMessage(r.Proofs)
	shorten(answer)
	return &wirepb.Control{Message: &wirepb.Control_Result{Result: answer}}
}

// shorten makes a page that is too large for a message a shorter page.
func shorten(page *wirepb.Result) {
	for n := len(page.Mappings); n > 1 && proto.Size(page) > wire.MaxControl/2; n = len(page.Mappings) {
		page.Mappings = page.Mappings[:n/2]
		page.Next = page.Mappings[n/2-1].GetMappingId()
	}
}

// addParts reads parts of a mapping, named as in the REST API, over those that there
// are. A name that this version does not know is refused: what it means may be that
// not everybody is let in.
func addParts(to *domain.Parts, object []byte) error {
	if len(object) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(object))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("the parts of the mapping are not as this forwarder knows them: %w", err)
	}
	if d.More() {
		return errors.New("the parts of the mapping are more than one object")
	}
	return nil
}

func mappingMessage(m domain.Mapping) *wirepb.Mapping {
	shown := m.Parts()
	shown.Options = shown.Options.WithoutSecrets()
	parts, err := json.Marshal(shown)
	if err != nil {
		parts = nil // they hold numbers, texts and lists of them, which can be written
	}
	return &wirepb.Mapping{MappingId: m.ID, Protocol: string(m.Protocol), Name: m.Name,
		SourceClientId: m.SourceClientID, TargetClientId: m.TargetClientID, LocalHost: m.LocalHost, LocalPort: uint32(m.LocalPort),
		TargetHost: m.TargetHost, TargetPort: uint32(m.TargetPort), Disabled: m.Disabled, Options: optionsText(m.Options.Shown(m.Protocol)), Parts: parts, ShareId: m.ShareID}
}

// unavailable is a command's code when nobody could decide it.
const unavailable = wire.Code(domain.CodeStoreUnavailable)

// resultOf is the answer to a command that came to nothing.
func resultOf(m *wirepb.Command, code wire.Code, message string) *wirepb.Control {
	return &wirepb.Control{Message: &wirepb.Control_Result{Result: &wirepb.Result{Id: m.GetId(), Code: string(code), Message: message}}}
}

// optionsText gives options as they go to an agent: JSON, or "" when nobody has set any.
func optionsText(o domain.Options) string {
	if reflect.ValueOf(o).IsZero() {
		return ""
	}
	text, err := json.Marshal(o)
	if err != nil {
		return "" // options hold numbers, texts, lists and maps of them
	}
	return string(text)
}

// port keeps a number that is none out of range.
func port(n uint32) int { return int(min(n, 1<<20)) }
