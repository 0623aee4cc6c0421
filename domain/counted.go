package domain

import "time"

// countedResource is how a quota counts one kind of resource.
type countedResource struct {
	code  Code   // of the refusal of one too many
	what  string // in that refusal
	limit func(*Quota) *int64
	// set is where the ids are; nil for a resource with functions of its own.
	set      func(*Quota) *map[int64]bool
	held     func(*Quota) int64
	take     func(*Quota, QuotaTaken)
	giveBack func(q *Quota, id int64)
}

// counted is the table of resources that count against a quota.
var counted = map[Resource]countedResource{
	ResourceClient: inSet(CodeQuotaClients, "clients", func(q *Quota) *int64 { return q.Limits.MaxClients },
		func(q *Quota) *map[int64]bool { return &q.Clients }),
	ResourceKey:        inSet(CodeQuotaKeys, "keys", atMost(MaxKeys), func(q *Quota) *map[int64]bool { return &q.Keys }),
	ResourceWebhook:    inSet(CodeQuotaWebhooks, "webhooks", atMost(MaxWebhooks), func(q *Quota) *map[int64]bool { return &q.Webhooks }),
	ResourceInvite:     inSet(CodeQuotaInvites, "invitations", atMost(MaxInvites), func(q *Quota) *map[int64]bool { return &q.Invites }),
	ResourceDomain:     inSet(CodeQuotaDomains, "domains", atMost(MaxDomains), func(q *Quota) *map[int64]bool { return &q.Domains }),
	ResourcePublicPort: publicPortsInSet(),
	ResourcePublicHost: inSet(CodeQuotaPublicHosts, "public hosts", func(q *Quota) *int64 { return q.Limits.MaxPublicHosts },
		func(q *Quota) *map[int64]bool { return &q.Hosts }),
	ResourceShare: {
		code: CodeQuotaShares, what: "shares", limit: atMost(MaxShares),
		held: func(q *Quota) int64 { return int64(len(q.Shares)) },
		take: func(q *Quota, e QuotaTaken) {
			if q.Shares == nil {
				q.Shares = map[int64]int64{}
			}
			q.Shares[e.ID] = e.TargetClientID
		},
		giveBack: func(q *Quota, id int64) { delete(q.Shares, id) },
	},
	ResourceMapping: {
		code: CodeQuotaMappings, what: "mappings", limit: func(q *Quota) *int64 { return q.Limits.MaxMappings },
		held: func(q *Quota) int64 { return int64(len(q.Mappings)) },
		take: func(q *Quota, e QuotaTaken) {
			if q.Mappings == nil {
				q.Mappings = map[int64]HeldMapping{}
			}
			q.Mappings[e.ID] = HeldMapping{SourceClientID: e.SourceClientID, TargetClientID: e.TargetClientID, Further: e.FurtherClientIDs}
		},
		giveBack: func(q *Quota, id int64) {
			q.setActive(id, false)
			delete(q.Mappings, id)
		},
	},
	ResourceActiveMapping: {
		code: CodeQuotaActive, what: "active mappings", limit: func(q *Quota) *int64 { return q.Limits.MaxActiveMappings },
		held:     func(q *Quota) int64 { return q.Active },
		take:     func(q *Quota, e QuotaTaken) { q.setActive(e.ID, true) },
		giveBack: func(q *Quota, id int64) { q.setActive(id, false) },
	},
}

// atMost is a limit that is the same for every account.
func atMost(n int64) func(*Quota) *int64 { return func(*Quota) *int64 { return &n } }

// inSet counts a resource of which the quota keeps the ids only.
func inSet(code Code, what string, limit func(*Quota) *int64, set func(*Quota) *map[int64]bool) countedResource {
	return countedResource{
		code: code, what: what, limit: limit, set: set,
		held: func(q *Quota) int64 { return int64(len(*set(q))) },
		take: func(q *Quota, e QuotaTaken) {
			if *set(q) == nil {
				*set(q) = map[int64]bool{}
			}
			(*set(q))[e.ID] = true
		},
		giveBack: func(q *Quota, id int64) { delete(*set(q), id) },
	}
}

// publicPortsInSet counts ports: a mapping with a range counts as all of them.
func publicPortsInSet() countedResource {
	c := inSet(CodeQuotaPublicPorts, "public ports", func(q *Quota) *int64 { return q.Limits.MaxPublicPorts },
		func(q *Quota) *map[int64]bool { return &q.Ports })
	mappings, take, giveBack := c.held, c.take, c.giveBack
	c.held = func(q *Quota) int64 {
		n := mappings(q)
		for _, ports := range q.Ranges {
			n += ports - 1
		}
		return n
	}
	c.take = func(q *Quota, e QuotaTaken) {
		take(q, e)
		if e.PublicPorts > 1 {
			if q.Ranges == nil {
				q.Ranges = map[int64]int64{}
			}
			q.Ranges[e.ID] = e.PublicPorts
		}
	}
	c.giveBack = func(q *Quota, id int64) {
		giveBack(q, id)
		delete(q.Ranges, id)
	}
	return c
}

// portsBeyondOne is what a quota is told of a mapping's public ports: their number when
// there are several, and nothing otherwise.
func (m *Mapping) portsBeyondOne() int64 {
	if n := m.PublicPort.Count(); n > 1 {
		return int64(n)
	}
	return 0
}

// recount plans that a mapping counts as another number of public ports.
func (s States) recount(d *Decision, m, next *Mapping) error {
	if m.PublicPort.Count() == next.PublicPort.Count() {
		return nil
	}
	for _, account := range m.Accounts() {
		if err := s.need(QuotaStream(account)); err != nil {
			return err
		}
		quota, ports := s.quota(account).Clone().(*Quota), []Resource{ResourcePublicPort}
		returned := QuotaReturned{Resources: ports, ID: m.ID}
		d.add(QuotaStream(account), returned)
		quota.Apply(returned, time.Time{})
		if err := quota.take(d, QuotaTaken{Resources: ports, ID: m.ID, PublicPorts: next.portsBeyondOne()}); err != nil {
			return err
		}
	}
	return nil
}
