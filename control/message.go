package control

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// lean leaves out of a view what a forwarder has no use for: names, addresses
// and password hashes of users. They neither travel nor stay in its memory.
func lean(v domain.ClientView) domain.ClientView {
	users := v.Users
	v.Users = nil
	for _, u := range users {
		v.Users = append(v.Users, domain.Versioned[domain.User]{Version: u.Version, State: domain.User{ID: u.State.ID,
			Disabled: u.State.Disabled, Deleted: u.State.Deleted, CreatedAt: u.State.CreatedAt, UpdatedAt: u.State.UpdatedAt}})
	}
	return v
}

func viewMessage(v domain.ClientView) *controlpb.View {
	c := v.Client.State
	m := &controlpb.View{Position: int64(v.Position), Client: &controlpb.Client{
		Version: int64(v.Client.Version), Id: c.ID, Kind: string(c.Kind), UserId: c.UserID,
		Name: text(c.Name), Description: text(c.Description), PublicKey: c.PublicKey,
		Disabled: c.Disabled, Deleted: c.Deleted, ClaimedAs: c.ClaimedAs, CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt)}}
	for _, mapping := range v.Mappings {
		m.Mappings = append(m.Mappings, mappingMessage(mapping))
	}
	for _, u := range v.Users {
		m.Users = append(m.Users, &controlpb.User{Version: int64(u.Version), Id: u.State.ID,
			Disabled: u.State.Disabled, Deleted: u.State.Deleted,
			CreatedAt: stamp(u.State.CreatedAt), UpdatedAt: stamp(u.State.UpdatedAt)})
	}
	for _, l := range v.Limits {
		x := l.State.Limits
		m.Limits = append(m.Limits, &controlpb.AccountLimits{Version: int64(l.Version), Account: l.State.Account,
			MaxClients: x.MaxClients, MaxMappings: x.MaxMappings, MaxActiveMappings: x.MaxActiveMappings,
			MaxConnectionsPerMapping: x.MaxConnectionsPerMapping, TotalBandwidthLimit: x.TotalBandwidthLimit,
			MonthlyTrafficLimit: x.MonthlyTrafficLimit})
	}
	return m
}

func viewOf(m *controlpb.View) domain.ClientView {
	c := m.GetClient()
	v := domain.ClientView{Position: domain.Position(m.GetPosition()), Client: domain.Versioned[domain.Client]{
		Version: domain.Version(c.GetVersion()), State: domain.Client{ID: c.GetId(), Kind: domain.ClientKind(c.GetKind()),
			UserID: c.GetUserId(), Name: c.GetName(), Description: c.GetDescription(), PublicKey: c.GetPublicKey(),
			Disabled: c.GetDisabled(), Deleted: c.GetDeleted(), ClaimedAs: c.GetClaimedAs(), CreatedAt: moment(c.GetCreatedAt()), UpdatedAt: moment(c.GetUpdatedAt())}}}
	for _, mapping := range m.GetMappings() {
		v.Mappings = append(v.Mappings, mappingOf(mapping))
	}
	for _, u := range m.GetUsers() {
		v.Users = append(v.Users, domain.Versioned[domain.User]{Version: domain.Version(u.GetVersion()),
			State: domain.User{ID: u.GetId(), Disabled: u.GetDisabled(), Deleted: u.GetDeleted(),
				CreatedAt: moment(u.GetCreatedAt()), UpdatedAt: moment(u.GetUpdatedAt())}})
	}
	for _, l := range m.GetLimits() {
		v.Limits = append(v.Limits, domain.Versioned[domain.AccountLimits]{Version: domain.Version(l.GetVersion()),
			State: domain.AccountLimits{Account: l.GetAccount(), Limits: domain.Limits{
				MaxClients: l.MaxClients, MaxMappings: l.MaxMappings, MaxActiveMappings: l.MaxActiveMappings,
				MaxConnectionsPerMapping: l.MaxConnectionsPerMapping, TotalBandwidthLimit: l.TotalBandwidthLimit,
				MonthlyTrafficLimit: l.MonthlyTrafficLimit}}})
	}
	return v
}

func mappingMessage(v domain.Versioned[domain.Mapping]) *controlpb.Mapping {
	m := v.State
	return &controlpb.Mapping{Version: int64(v.Version), Id: m.ID, UserId: m.UserID, Name: text(m.Name),
		Protocol: string(m.Protocol), SourceClientId: m.SourceClientID, TargetClientId: m.TargetClientID,
		SourceUserId: m.SourceUserID, TargetUserId: m.TargetUserID, ShareId: m.ShareID,
		LocalHost: m.LocalHost, LocalPort: int32(m.LocalPort), TargetHost: m.TargetHost, TargetPort: int32(m.TargetPort),
		Disabled: m.Disabled, Deleted: m.Deleted, CreatedAt: stamp(m.CreatedAt), UpdatedAt: stamp(m.UpdatedAt)}
}

func mappingOf(m *controlpb.Mapping) domain.Versioned[domain.Mapping] {
	return domain.Versioned[domain.Mapping]{Version: domain.Version(m.GetVersion()), State: domain.Mapping{
		ID: m.GetId(), UserID: m.GetUserId(), Name: m.GetName(), Protocol: domain.Protocol(m.GetProtocol()),
		SourceClientID: m.GetSourceClientId(), TargetClientID: m.GetTargetClientId(),
		SourceUserID: m.GetSourceUserId(), TargetUserID: m.GetTargetUserId(), ShareID: m.GetShareId(),
		LocalHost: m.GetLocalHost(), LocalPort: int(m.GetLocalPort()), TargetHost: m.GetTargetHost(), TargetPort: int(m.GetTargetPort()),
		Disabled: m.GetDisabled(), Deleted: m.GetDeleted(), CreatedAt: moment(m.GetCreatedAt()), UpdatedAt: moment(m.GetUpdatedAt())}}
}

// recordMessage leaves a password's hash out: no forwarder has a use for it. The
// record's place, name and everything else stay as they are in the log.
func recordMessage(r domain.Record) (*controlpb.Record, error) {
	meta, err := json.Marshal(r.Meta)
	if err != nil {
		return nil, fmt.Errorf("encode record %d: %w", r.Position, err)
	}
	data := []byte(r.Data)
	if r.Name == (domain.UserPasswordSet{}).EventName() {
		if _, _, data, err = domain.Encode(domain.UserPasswordSet{}); err != nil {
			return nil, fmt.Errorf("encode record %d: %w", r.Position, err)
		}
	}
	return &controlpb.Record{Position: int64(r.Position), Stream: string(r.Stream), Version: int64(r.Version), Owner: r.Owner,
		Name: r.Name, Schema: int32(r.Schema), Id: r.ID[:], Data: data, Meta: meta, Recorded: stamp(r.Recorded)}, nil
}

func recordOf(m *controlpb.Record) (domain.Record, error) {
	r := domain.Record{Position: domain.Position(m.GetPosition()), Version: domain.Version(m.GetVersion()), Owner: m.GetOwner(),
		Name: m.GetName(), Schema: int(m.GetSchema()), Data: m.GetData(), Recorded: moment(m.GetRecorded())}
	if len(m.GetId()) != len(r.ID) {
		return r, fmt.Errorf("decode record %d: its id has %d bytes", r.Position, len(m.GetId()))
	}
	copy(r.ID[:], m.GetId())
	var err error
	if r.Stream, err = domain.ParseStreamID(m.GetStream()); err != nil {
		return r, fmt.Errorf("decode record %d: %w", r.Position, err)
	}
	if err := json.Unmarshal(m.GetMeta(), &r.Meta); err != nil {
		return r, fmt.Errorf("decode record %d: %w", r.Position, err)
	}
	return r, nil
}

// stamp and moment keep a zero time zero.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
