package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Rule is a rule of a policy that is a list: the first that matches decides.
type Rule struct {
	Allow     bool     // otherwise it denies
	Service   string   // as in an entry of --allow; "*" denies sockets and directories too, and allows none
	Protocols []string // of the mapping, of [RuleProtocols]; none = all
	Hours     []Hours  // of this machine's clock; none = always
	Line      int      // in the file, for whoever is refused
}

// RuleProtocols are the protocols that rules may name.
var RuleProtocols = []string{"tcp", "udp", "http", "socks5", "tls"}

// Hours is a time of the week, again and again.
type Hours struct {
	days     [7]bool       // on which it begins, by time.Weekday
	from, to time.Duration // since midnight; to is below from when it ends on the next day
}

const hourForms = "write DAYS FROM-TO, for example mon-fri 08:00-18:00, sat 10:00-12:00 or 22:00-06:00"

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseHours reads a time of the week: a day or two days with a dash between, and the
// time of day; the days may be left out.
func ParseHours(text string) (h Hours, err error) {
	fields := strings.Fields(strings.ToLower(text))
	switch len(fields) {
	case 1:
		fields = []string{"sun-sat", fields[0]}
	case 2:
	default:
		return h, fmt.Errorf("%q is no time of the week; %s", text, hourForms)
	}
	first, last, isRange := strings.Cut(fields[0], "-")
	if !isRange {
		last = first
	}
	begin, end := slices.Index(dayNames, first), slices.Index(dayNames, last)
	if begin < 0 || end < 0 {
		return h, fmt.Errorf("%q names no days, which are %s; %s", text, strings.Join(dayNames, ", "), hourForms)
	}
	for day := begin; ; day = (day + 1) % 7 {
		h.days[day] = true
		if day == end {
			break
		}
	}
	from, to, ok := strings.Cut(fields[1], "-")
	var wrong [2]error
	h.from, wrong[0] = timeOfDay(from)
	h.to, wrong[1] = timeOfDay(to)
	if !ok || wrong[0] != nil || wrong[1] != nil || h.from == h.to || h.from == 24*time.Hour {
		return h, fmt.Errorf("%q has no time of day from 00:00 to 24:00; %s", text, hourForms)
	}
	return h, nil
}

func timeOfDay(text string) (time.Duration, error) {
	if text == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", text)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err
}

// has tells whether it is that time.
func (h Hours) has(t time.Time) bool {
	now := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	if h.from < h.to {
		return h.days[t.Weekday()] && now >= h.from && now < h.to
	}
	return h.days[t.Weekday()] && now >= h.from || h.days[(t.Weekday()+6)%7] && now < h.to
}

// ruled is a rule that was read.
type ruled struct {
	Rule
	host    rule  // unless isPlace
	at      place // if isPlace
	isPlace bool
}

// PolicyOf gives the policy of a list of rules. What no rule allows is refused, loopback
// too. source names the list to whoever is refused.
func PolicyOf(source string, rules []Rule) (Policy, error) {
	p := Policy{source: cmp.Or(source, "the policy"), list: []ruled{}}
	var faults []error
	for _, r := range rules {
		read := ruled{Rule: r}
		var err error
		if read.at, read.isPlace, err = parseAllowedPlace(strings.TrimSpace(r.Service)); !read.isPlace {
			if read.host, err = parseRule(strings.TrimSpace(r.Service)); err != nil {
				err = fmt.Errorf("%w; %s", err, allowForms)
			}
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s, line %d: %q: %w", p.source, r.Line, r.Service, err))
		}
		for _, protocol := range r.Protocols {
			if !slices.Contains(RuleProtocols, protocol) {
				faults = append(faults, fmt.Errorf("%s, line %d: there is no protocol %q", p.source, r.Line, protocol))
			}
		}
		p.list = append(p.list, read)
	}
	return p, errors.Join(faults...)
}

// question is what a connection is for.
type question struct {
	protocol string // of the mapping
	host     string // as it was named
	addr     netip.Addr
	port     uint16
	at       *place // in place of host, addr and port
	now      time.Time
}

// verdict is the answer of a policy.
type verdict struct {
	allowed bool
	top     string // of a place: the path that was allowed
	why     string // it is not: where that stands, "" = nothing allows it
}

// ask asks the policy.
func (p Policy) ask(q question) verdict {
	if p.list == nil {
		if q.at != nil {
			top, ok := p.allowsPlace(*q.at)
			return verdict{allowed: ok, top: top}
		}
		return verdict{allowed: p.Allows(q.host, q.addr, q.port)}
	}
	for _, r := range p.list {
		if !r.matches(q) {
			continue
		}
		if r.Allow {
			return verdict{allowed: true, top: r.at.path}
		}
		return verdict{why: fmt.Sprintf("%s, line %d", filepath.Base(p.source), r.Line)}
	}
	return verdict{why: "no rule of " + filepath.Base(p.source) + " allows it"}
}

// matches tells whether the rule decides.
func (r ruled) matches(q question) bool {
	if len(r.Protocols) > 0 && !slices.Contains(r.Protocols, q.protocol) {
		return false
	}
	if len(r.Hours) > 0 && !slices.ContainsFunc(r.Hours, func(h Hours) bool { return h.has(q.now) }) {
		return false
	}
	switch {
	case q.at != nil && r.isPlace:
		return q.at.within(r.at)
	case q.at != nil:
		return !r.Allow && r.Service == "*"
	case r.isPlace:
		return false
	case r.Allow: // as an entry of --allow: what is guarded needs a rule that names it
		return Policy{rules: []rule{r.host}, narrowed: true}.Allows(q.host, q.addr, q.port)
	}
	return r.host.covers(q.host, q.addr, q.port)
}

// covers tells whether the rule is about a host, an address of it and a port.
func (r rule) covers(host string, addr netip.Addr, port uint16) bool {
	addr = addr.Unmap().WithZone("")
	if port < r.first || port > r.last {
		return false
	}
	if r.network.IsValid() {
		return r.network.Contains(addr) || r.network.Contains(embedded(addr))
	}
	return r.any || r.name == strings.TrimSuffix(strings.ToLower(host), ".")
}

// SetPolicy has another policy hold from now on. Connections that it does not allow end.
func (a *Agent) SetPolicy(p Policy) { a.target.setPolicy(p) }
