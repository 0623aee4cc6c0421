package domain

import "reflect"

// Limits bound what an account may have. nil is unlimited, 0 is none.
//
// The struct is the table of limits: the API's bodies, the plans of the
// configuration, the flags of the command line and the checks are made of its tags.
// docs/howto/add-a-quota.md says how to add one.
type Limits struct {
	MaxClients               *int64 `json:"max_clients" flag:"max-clients" unit:"number" doc:"null = unlimited, 0 = none" example:"10"`
	MaxMappings              *int64 `json:"max_mappings" flag:"max-mappings" unit:"number" doc:"null = unlimited, 0 = none" example:"50"`
	MaxActiveMappings        *int64 `json:"max_active_mappings" flag:"max-active-mappings" unit:"number" doc:"null = unlimited, 0 = none" example:"50"`
	MaxConnectionsPerMapping *int64 `json:"max_connections_per_mapping" flag:"max-connections-per-mapping" unit:"number" doc:"At a time; null = unlimited, 0 = none" example:"100"`
	TotalBandwidthLimit      *int64 `json:"total_bandwidth_limit" flag:"bandwidth" unit:"bytes per second" doc:"Bytes per second; null = unlimited, 0 = none" example:"10485760"`
	MonthlyTrafficLimit      *int64 `json:"monthly_traffic_limit" flag:"monthly-traffic" unit:"bytes per month" doc:"Bytes per calendar month, UTC; null = unlimited, 0 = none" example:"1099511627776"`
	MaxPublicPorts           *int64 `json:"max_public_ports" flag:"max-public-ports" unit:"number" doc:"Public ports of mappings; null = unlimited, 0 = none" example:"10"`
	MaxPublicHosts           *int64 `json:"max_public_hosts" flag:"max-public-hosts" unit:"number" doc:"Mappings with a public host; null = unlimited, 0 = none" example:"10"`
}

// LimitField describes one limit.
type LimitField struct {
	Name string // as the API and the file of plans spell it
	Flag string // of the command line, without dashes
	Unit string
}

// limitFields is read of the tags once.
var limitFields = func() (fields []LimitField) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Limits]()) {
		fields = append(fields, LimitField{Name: f.Tag.Get("json"), Flag: f.Tag.Get("flag"), Unit: f.Tag.Get("unit")})
	}
	return fields
}()

// LimitFields lists the limits there are, in a fixed order.
func LimitFields() []LimitField { return limitFields }

// At gives where the limit of a name stands, nil for a name that is none.
func (l *Limits) At(name string) **int64 {
	for _, limit := range l.fields() {
		if limit.Name == name {
			return limit.at
		}
	}
	return nil
}

type namedLimit struct {
	LimitField
	at **int64
}

func (l *Limits) fields() []namedLimit {
	v, fields := reflect.ValueOf(l).Elem(), make([]namedLimit, len(limitFields))
	for i, field := range limitFields {
		fields[i] = namedLimit{field, v.Field(i).Addr().Interface().(**int64)}
	}
	return fields
}

// Equal reports whether both allow the same.
func (l Limits) Equal(o Limits) bool { return reflect.DeepEqual(l, o) }

func (f *faults) limits(l Limits) {
	for _, limit := range l.fields() {
		if n := *limit.at; n != nil && *n < 0 {
			f.add(limit.Name, "must be 0 or more, or null for unlimited")
		}
	}
}
