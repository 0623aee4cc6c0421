package domain

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Resource is something an account holds a number of.
type Resource string

// The resources that are counted by the quota's event stream.
const (
	ResourceClient        Resource = "client"
	ResourceMapping       Resource = "mapping"
	ResourceActiveMapping Resource = "active_mapping"
	ResourceKey           Resource = "key"
	ResourceShare         Resource = "share"
	ResourceWebhook       Resource = "webhook"
	ResourceInvite        Resource = "invite"
	ResourceDomain        Resource = "domain"
	ResourcePublicPort    Resource = "public_port"
	ResourcePublicHost    Resource = "public_host"
)

// Quota holds the limits of an account and the resources that count against them.
//
// Rules: no command exceeds a limit, under any concurrency. Every command that adds or
// removes a resource writes into this one event stream, so two commands cannot both
// decide on the same count. A limit may be set below the present count: the resources
// stay, and no new one is added. The quota is an aggregate of its own, so that the use
// of an account does not change the version of the user.
type Quota struct {
	Account  int64
	Limits   Limits
	Clients  map[int64]bool
	Mappings map[int64]HeldMapping
	Active   int64           // how many of Mappings are active
	Keys     map[int64]bool  `json:",omitempty"`
	Shares   map[int64]int64 `json:",omitempty"` // the client of each share
	Webhooks map[int64]bool  `json:",omitempty"`
	Invites  map[int64]bool  `json:",omitempty"`
	Domains  map[int64]bool  `json:",omitempty"`
	Ports    map[int64]bool  `json:",omitempty"` // mappings with a public port
	Ranges   map[int64]int64 `json:",omitempty"` // of these, those with several: how many
	Hosts    map[int64]bool  `json:",omitempty"` // mappings with a public host
}

// HeldMapping is a mapping that counts against a quota.
type HeldMapping struct {
	SourceClientID int64
	TargetClientID int64
	Further        []int64 `json:",omitempty"` // clients of further targets
	Active         bool
}

// Ends are the clients that the mapping has to do with.
func (m HeldMapping) Ends() []int64 { return ends(m.SourceClientID, m.TargetClientID, m.Further) }

// Events of a quota.
type (
	// QuotaSet replaces all limits.
	QuotaSet struct {
		Account int64  `json:"account"`
		Limits  Limits `json:"limits"`
	}
	// QuotaTaken counts a client, or a mapping, or that a mapping is active.
	QuotaTaken struct {
		Resources        []Resource `json:"resources"`
		ID               int64      `json:"id"`
		SourceClientID   int64      `json:"source_client_id,omitempty"`
		TargetClientID   int64      `json:"target_client_id,omitempty"`
		FurtherClientIDs []int64    `json:"further_client_ids,omitempty"` // since schema 2: clients of further targets
		PublicPorts      int64      `json:"public_ports,omitempty"`       // since schema 3: how many, of a mapping with several
	}
	// QuotaReturned ends the count of a QuotaTaken.
	QuotaReturned struct {
		Resources []Resource `json:"resources"`
		ID        int64      `json:"id"`
	}
)

// EventName implements [Event].
func (QuotaSet) EventName() string { return "quota_set" }

// EventName implements [Event].
func (QuotaTaken) EventName() string { return "quota_taken" }

// EventName implements [Event].
func (QuotaReturned) EventName() string { return "quota_returned" }

// Exists implements [Aggregate].
func (q *Quota) Exists() bool { return q.Account != 0 }

// Clone implements [Aggregate].
func (q *Quota) Clone() Aggregate {
	c := *q
	c.Mappings, c.Shares, c.Ranges = maps.Clone(q.Mappings), maps.Clone(q.Shares), maps.Clone(q.Ranges)
	for _, r := range counted {
		if r.set != nil {
			*r.set(&c) = maps.Clone(*r.set(q))
		}
	}
	return &c
}

// Apply implements [Aggregate].
func (q *Quota) Apply(event Event, _ time.Time) {
	switch e := event.(type) {
	case QuotaSet:
		q.Account, q.Limits = e.Account, e.Limits
	case QuotaTaken:
		for _, r := range e.Resources {
			if c, ok := counted[r]; ok {
				c.take(q, e)
			}
		}
	case QuotaReturned:
		for _, r := range e.Resources {
			if c, ok := counted[r]; ok {
				c.giveBack(q, e.ID)
			}
		}
	case QuotaMoved:
		if m, ok := q.Mappings[e.ID]; ok {
			m.SourceClientID, m.TargetClientID, m.Further = e.SourceClientID, e.TargetClientID, e.FurtherClientIDs
			q.Mappings[e.ID] = m
		}
	}
}

func (q *Quota) setActive(id int64, active bool) {
	m, ok := q.Mappings[id]
	if !ok || m.Active == active {
		return
	}
	m.Active = active
	q.Mappings[id] = m
	if active {
		q.Active++
	} else {
		q.Active--
	}
}

// take adds the event to the decision, or refuses it when a limit would be exceeded.
func (q *Quota) take(d *Decision, e QuotaTaken) error {
	for _, r := range e.Resources {
		c := counted[r]
		switch held, limit := c.held(q), c.limit(q); {
		case limit == nil:
		case held >= *limit:
			return refuse(c.code, fmt.Sprintf("The account %d has %d %s and may have %d.", q.Account, held, c.what, *limit))
		case r == ResourcePublicPort && e.PublicPorts > *limit-held:
			return refuse(c.code, fmt.Sprintf("The account %d has %d %s and may have %d: there is no room for %d more.", q.Account, held, c.what, *limit, e.PublicPorts))
		}
		if r == ResourceMapping {
			if err := q.roomAt(ends(e.SourceClientID, e.TargetClientID, e.FurtherClientIDs)...); err != nil {
				return err
			}
		}
	}
	d.add(QuotaStream(q.Account), e)
	return nil
}

// roomAt refuses one more mapping of clients that have [MaxClientMappings] already.
func (q *Quota) roomAt(ends ...int64) error {
	if len(q.Mappings) < MaxClientMappings {
		return nil // no client has more mappings than its account
	}
	held := map[int64]int{}
	for _, m := range q.Mappings {
		for _, end := range m.Ends() {
			held[end]++
		}
	}
	for _, end := range ends {
		if end != 0 && held[end] >= MaxClientMappings {
			return refuse(CodeQuotaClientMappings, fmt.Sprintf("The client %d has %d mappings and may have %d.", end, held[end], MaxClientMappings))
		}
	}
	return nil
}

// takeNow is take that also applies the event to the quota, so that the next take counts
// it. The quota is the caller's own copy.
func (q *Quota) takeNow(d *Decision, e QuotaTaken) error {
	if err := q.take(d, e); err != nil {
		return err
	}
	q.Apply(e, time.Time{})
	return nil
}

func (q *Quota) keyIDs() []int64     { return slices.Sorted(maps.Keys(q.Keys)) }
func (q *Quota) shareIDs() []int64   { return slices.Sorted(maps.Keys(q.Shares)) }
func (q *Quota) webhookIDs() []int64 { return slices.Sorted(maps.Keys(q.Webhooks)) }
func (q *Quota) inviteIDs() []int64  { return slices.Sorted(maps.Keys(q.Invites)) }
func (q *Quota) domainIDs() []int64  { return slices.Sorted(maps.Keys(q.Domains)) }

// ClientIDs lists the clients that the account has.
func (q *Quota) ClientIDs() []int64  { return slices.Sorted(maps.Keys(q.Clients)) }
func (q *Quota) mappingIDs() []int64 { return slices.Sorted(maps.Keys(q.Mappings)) }

// mappingsOf lists the held mappings that end with a client: those that it is source or
// target of, and not those that have it for a further target.
func (q *Quota) mappingsOf(clientID int64) []int64 {
	return slices.DeleteFunc(q.mappingIDs(), func(id int64) bool {
		m := q.Mappings[id]
		return m.SourceClientID != clientID && m.TargetClientID != clientID
	})
}

// sharesOf lists the held shares that lead to a client.
func (q *Quota) sharesOf(clientID int64) []int64 {
	return slices.DeleteFunc(q.shareIDs(), func(id int64) bool { return q.Shares[id] != clientID })
}

// SetQuota gives an account its limits. For a user, Account is its id.
type SetQuota struct {
	ID     int64
	Limits Limits
	// Keep names limits that do not change, whatever Limits holds; the names are those
	// of the API. The limit is read and kept in one decision, so that no other change
	// can come in between.
	Keep []string
}

// CommandName implements [Command].
func (SetQuota) CommandName() string { return "set_quota" }

// Subject implements [Command].
func (c SetQuota) Subject() StreamID { return QuotaStream(c.ID) }

// Account implements [Command].
func (c SetQuota) Account() int64 { return c.ID }

// Reads implements [Command].
func (c SetQuota) Reads() []StreamID {
	reads := []StreamID{QuotaStream(c.ID)}
	if IsAnonymous(c.ID) {
		return append(reads, ClientStream(c.ID))
	}
	return append(reads, UserStream(c.ID))
}

// Decide implements [Command].
func (c SetQuota) Decide(s States) (Decision, error) {
	next := c.Limits
	current := s.quota(c.ID).Limits
	held := current.fields()
	for i, limit := range next.fields() {
		if slices.Contains(c.Keep, limit.Name) {
			*limit.at = *held[i].at
		}
	}
	var f faults
	f.limits(next)
	if err := f.err("The quota cannot be set as asked."); err != nil {
		return Decision{}, err
	}
	var err error
	if IsAnonymous(c.ID) {
		_, err = s.liveClient(c.ID)
	} else {
		_, err = s.liveUser(c.ID)
	}
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: c.ID}
	if !s.quota(c.ID).Limits.Equal(next) {
		d.add(QuotaStream(c.ID), QuotaSet{Account: c.ID, Limits: next})
	}
	return d, nil
}
