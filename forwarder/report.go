package forwarder

import (
	"maps"
	"slices"

	"github.com/tunnox-net/tunnox/usage"
)

// ask makes the next report ask about the accounts and the mapping of a meter.
func (t *tally) ask(m *meter) {
	if m.payer == nil {
		return
	}
	if m.payer.shared.Load() {
		t.wanted()[m.payer.id] = m.payer
	}
	if m.payer.connections() != nil {
		if t.watching == nil {
			t.watching = map[int64]*meter{}
		}
		t.watching[m.mapping] = m
	}
}

func (t *tally) wanted() map[int64]*account {
	if t.asking == nil {
		t.asking = map[int64]*account{}
	}
	return t.asking
}

// make makes the next report, if there is something to report.
func (t *tally) make(last bool) bool {
	now := t.now()
	if !t.more {
		for m := range t.live {
			t.ask(m)
		}
	}
	t.mu.Lock()
	for a := range t.asked {
		t.wanted()[a.id] = a
	}
	clear(t.asked)
	for a := range t.over {
		if !t.more {
			t.wanted()[a.id] = a
		}
	}
	t.mu.Unlock()
	beat := (len(t.live) > 0 || len(t.sharing) > 0) && now.Sub(t.told) >= heartbeat
	release := slices.ContainsFunc(slices.Collect(maps.Keys(t.sharing)), func(id int64) bool { return t.asking[id] == nil })
	due := now.Sub(t.told) >= t.interval/2
	if len(t.pending) == 0 && !(due && len(t.asking) > 0) && !t.fresh() && !beat && !release && !t.moving && !t.more && !last {
		t.asking, t.watching = nil, nil
		return false
	}
	t.sequence++
	r := &usage.Report{Reporter: t.reporter, Node: t.node, Sequence: t.sequence, Span: max(now.Sub(t.gathered), t.interval/2), Last: last}
	for id, line := range t.pending {
		if len(r.Lines) == usage.MaxLines {
			break
		}
		r.Lines = append(r.Lines, *line)
		t.carried[line.Account] += line.Bytes()
		delete(t.pending, id)
	}
	t.moving = len(r.Lines) > 0
	t.sent = r
	if len(t.pending) > 0 { // the answer about accounts must come after all lines
		r.Last = false
		return true
	}
	t.gathered = now
	t.question(r)
	return true
}

// fresh reports whether somebody waits for the first answer about an account.
func (t *tally) fresh() bool {
	now := t.now()
	for _, a := range t.asking {
		if !a.known(now, 3*t.interval) {
			return true
		}
	}
	return false
}

// question adds the accounts and mappings to ask about to the report.
func (t *tally) question(r *usage.Report) {
	t.inquired, t.watched = map[int64]*account{}, map[int64]*meter{}
	for id := range t.sharing { // bandwidth that is not used here any more is free for others
		if t.asking[id] == nil && !t.more && len(r.Asks) < usage.MaxLines {
			r.Asks = append(r.Asks, usage.Ask{Account: id})
			delete(t.sharing, id)
		}
	}
	for id, a := range t.asking {
		if len(r.Asks) == usage.MaxLines {
			break
		}
		t.inquired[id] = a
		delete(t.asking, id)
		demand := int64(0)
		if !r.Last {
			demand = a.demand(t.carried[id], t.now(), r.Span)
			delete(t.carried, id)
		}
		if demand > 0 {
			t.sharing[id] = true
		} else {
			delete(t.sharing, id)
		}
		a.reporting(t.round)
		r.Asks = append(r.Asks, usage.Ask{Account: id, Demand: demand})
	}
	for id, m := range t.watching {
		if len(r.Mappings) == usage.MaxLines {
			break
		}
		t.watched[id] = m
		delete(t.watching, id)
		r.Mappings = append(r.Mappings, id)
	}
	t.more = len(t.asking)+len(t.watching) > 0
	if t.more {
		r.Last = false
	} else {
		clear(t.carried)
	}
}

// apply applies the answer to the report that was sent.
func (t *tally) apply(answer usage.Answer) {
	now := t.now()
	t.told = now
	if len(t.sent.Asks)+len(t.sent.Mappings) == 0 {
		return
	}
	for _, as := range answer.Accounts {
		if a := t.inquired[as.Account]; a != nil {
			a.answered(as, now)
		}
		delete(t.inquired, as.Account)
	}
	for _, a := range t.inquired { // the answer does not mention these, and they are not asked about again at once
		a.unanswered(now)
	}
	elsewhere := map[int64]int64{}
	for _, o := range answer.Elsewhere {
		elsewhere[o.Mapping] = o.Streams
	}
	for _, id := range t.sent.Mappings {
		if m := t.watched[id]; m != nil {
			m.elsewhere.Store(elsewhere[id])
			m.elsewhereAt.Store(now.UnixNano())
		}
	}
	t.inquired, t.watched = nil, nil
}
