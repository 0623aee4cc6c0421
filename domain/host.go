package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Host is one public host of the cluster, or several whose names have one number: who
// has it, and which mapping has which of its paths.
//
// Rules: a host of another domain than the server's is for the user who has proved it
// ([Domain]). Any other host belongs to one user at a time, and each of its paths to one mapping of
// that user: who has a part of a host can read the cookies of all of it. Like a port it
// is an aggregate of its own, so that of two who ask for one host at the same moment
// one is refused. A tls mapping has all of its host: what a visitor asks for is opened
// by nobody here, so that no path of it could be another mapping's. When its last path was freed, only the user who had it gets it for an
// hour.
type Host struct{ Names map[string]HostUse }

// HostUse is who has a host, or had it last.
type HostUse struct {
	UserID  int64
	Paths   map[string]int64 `json:",omitempty"` // to the mapping that has the path
	Whole   bool             `json:",omitempty"` // one mapping has all of it
	FreedAt time.Time        // since when no path is taken
	Owner   int64            `json:",omitempty"` // the user who has proved it, for a host of another domain than ours
}

const (
	// HostKept is how long a freed host is kept for the user who had it.
	HostKept = time.Hour
	// MaxHostPaths bounds the paths of one host: a forwarder holds all of them.
	MaxHostPaths = 100

	maxLabelLength = 63  // bytes, RFC 1035 §2.3.4
	maxPathLength  = 255 // bytes
)

// Events of a host.
type (
	// HostTaken gives a path of a host to a mapping.
	HostTaken struct {
		Host      string `json:"host"`
		Path      string `json:"path"`
		MappingID int64  `json:"mapping_id"`
		UserID    int64  `json:"user_id"`
		Whole     bool   `json:"whole,omitempty"` // the mapping has all of the host, and Path is /
	}
	// HostFreed takes it back.
	HostFreed struct {
		Host string `json:"host"`
		Path string `json:"path"`
	}
)

// EventName implements [Event].
func (HostTaken) EventName() string { return "host_taken" }

// EventName implements [Event].
func (HostFreed) EventName() string { return "host_freed" }

// Exists implements [Aggregate].
func (h *Host) Exists() bool { return len(h.Names) > 0 }

// Clone implements [Aggregate].
func (h *Host) Clone() Aggregate {
	c := &Host{maps.Clone(h.Names)}
	for name, use := range c.Names {
		use.Paths = maps.Clone(use.Paths)
		c.Names[name] = use
	}
	return c
}

// Apply implements [Aggregate].
func (h *Host) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case HostTaken:
		use := h.Names[e.Host]
		if use.Paths == nil {
			use.Paths = map[string]int64{}
		}
		use.Paths[e.Path] = e.MappingID
		use.UserID, use.FreedAt, use.Whole = e.UserID, time.Time{}, e.Whole
		if h.Names == nil {
			h.Names = map[string]HostUse{}
		}
		h.Names[e.Host] = use
	case HostProved:
		use := h.Names[e.Host]
		use.Owner = e.UserID
		if h.Names == nil {
			h.Names = map[string]HostUse{}
		}
		h.Names[e.Host] = use
	case HostReleased:
		name := h.known(e.Host, func(use HostUse) bool { return use.Owner != 0 })
		if use, ok := h.Names[name]; ok {
			use.Owner = 0
			h.Names[name] = use
		}
	case HostFreed:
		e.Host = h.known(e.Host, func(use HostUse) bool { return len(use.Paths) > 0 })
		use := h.Names[e.Host]
		if _, ok := use.Paths[e.Path]; !ok && e.Path == Erased {
			for _, e.Path = range slices.Sorted(maps.Keys(use.Paths)) {
				break
			}
		}
		delete(use.Paths, e.Path)
		if len(use.Paths) == 0 {
			use.Paths, use.FreedAt, use.Whole = nil, at, false
		}
		if h.Names != nil {
			h.Names[e.Host] = use
		}
	}
}

// known gives the name that an event is of. The name of an erased user is erased, while
// an older event of that user may say it: what is taken back under the one was given
// under the other, because a stream is of one name.
func (h *Host) known(name string, given func(HostUse) bool) string {
	if name != Erased || given(h.Names[name]) {
		return name
	}
	for _, other := range slices.Sorted(maps.Keys(h.Names)) {
		if given(h.Names[other]) {
			return other
		}
	}
	return name
}

// Mappings gives the mappings that have a path of the host, in order.
func (h *Host) Mappings(name string) []int64 {
	return slices.Sorted(maps.Values(h.Names[name].Paths))
}

// freeFor reports whether the user may have the name now.
func (h *Host) freeFor(user int64, name string, now time.Time) bool {
	use, used := h.Names[name]
	if last, erased := h.Names[Erased]; erased && now.Before(last.FreedAt.Add(HostKept)) {
		return false // the user who had it last is erased, and so is the name
	}
	switch {
	case !used || use.UserID == user:
		return true
	case len(use.Paths) > 0:
		return false
	}
	return !now.Before(use.FreedAt.Add(HostKept))
}

// hostNumber gives the number of a host's event stream. Two names with one number share
// the stream, and nothing else.
func hostNumber(name string) int64 {
	sum := sha256.Sum256([]byte(name))
	return max(1, int64(binary.BigEndian.Uint64(sum[:])>>1))
}

// Refusals of public hosts.
const (
	CodeHostTaken        Code = "host_taken"
	CodeHostsTaken       Code = "hosts_taken" // none of those that were drawn is free
	CodeHostNotVerified  Code = "host_not_verified"
	CodeQuotaPublicHosts Code = "quota_public_hosts"
)

// chooseHost gives the public host for a mapping: the label it names, or the first free
// one of those drawn.
func (s States) chooseHost(o PublicOffer, m *Mapping) (string, error) {
	refuseHost := func(code Code, format string, args ...any) (string, error) {
		return "", refuseAt(code, fmt.Sprintf(format, args...), "public_host")
	}
	if !o.Known {
		return refuseHost(CodePublicUnavailable, "Which forwarders serve public hosts cannot be asked now. Try again in a moment.")
	}
	domains := o.Domains[m.Protocol]
	switch {
	case len(domains) > 0:
	case m.Protocol == ProtocolTLS:
		return refuseHost(CodePublicUnavailable, "No forwarder passes TLS through. Start one with --https ADDRESS or --tls ADDRESS, and --base-domain DOMAIN.")
	default:
		return refuseHost(CodePublicUnavailable, "No forwarder serves HTTP. Start one with --http ADDRESS and --base-domain DOMAIN.")
	}
	if m.PublicHost == "" {
		streams := make([]StreamID, len(o.Labels))
		for i, label := range o.Labels {
			streams[i] = HostStream(label)
		}
		if err := s.need(streams...); err != nil {
			return "", err
		}
		for _, label := range o.Labels {
			if !s.host(label).Exists() && !o.isAPI(label, domains) {
				return label, nil
			}
		}
		return refuseHost(CodeHostsTaken, "No free public host was found. Name one.")
	}
	host := m.PublicHost
	for _, domain := range domains {
		if label, ok := strings.CutSuffix(host, "."+domain); ok && label != "" && !strings.Contains(label, ".") {
			host = label
			break
		}
	}
	if o.isAPI(host, domains) {
		return refuseHost(CodeHostTaken, "The public host %s is the server's own: its API is there. Name another.", m.PublicHost)
	}
	if err := s.need(HostStream(host)); err != nil {
		return "", err
	}
	h := s.host(host)
	switch foreign := strings.Contains(host, "."); {
	case foreign && h.Names[host].Owner != m.UserID:
		return refuseHost(CodeHostNotVerified, "The host %s is neither one label under %s nor a domain that the mapping's user has verified. Name a label, for example %s, or add the domain and verify it.",
			m.PublicHost, anyOf(domains), firstLabel(host))
	case !foreign && !h.freeFor(m.UserID, host, o.Now):
		return refuseHost(CodeHostTaken, "The public host %s is taken, or was a moment ago. Name another, or none to have one chosen.", host)
	}
	use := h.Names[host]
	paths := use.Paths
	if alone := len(paths) == 0 || len(paths) == 1 && paths[m.PublicPath] == m.ID; !alone {
		switch {
		case use.Whole:
			return refuseHost(CodeHostTaken, "The public host %s is the mapping %d's, which has all of it as a tls mapping.", host, paths["/"])
		case m.Protocol == ProtocolTLS:
			return refuseHost(CodeHostTaken, "The public host %s is the mapping %d's, and a tls mapping needs a host of its own. Name another.", host, h.Mappings(host)[0])
		}
	}
	if other := paths[m.PublicPath]; other != 0 && other != m.ID {
		return "", refuseAt(CodeHostTaken, fmt.Sprintf("The path %s of the public host %s is the mapping %d's.", m.PublicPath, host, other), "public_path")
	}
	if len(paths) >= MaxHostPaths {
		return "", refuseAt(CodeHostTaken, fmt.Sprintf("The public host %s has %d paths, which is the most there can be.", host, len(paths)), "public_path")
	}
	return host, nil
}

// isAPI reports whether a host, or a label under one of the domains, is that of the
// server's API.
func (o PublicOffer) isAPI(host string, domains []string) bool {
	return slices.Contains(o.APIs, host) || slices.ContainsFunc(domains, func(domain string) bool {
		return slices.Contains(o.APIs, host+"."+domain)
	})
}

// firstLabel is what a full name might be called under another domain.
func firstLabel(host string) string {
	label, _, _ := strings.Cut(host, ".")
	return label
}

// takeHost plans that a mapping has its public host and path.
func (d *Decision) takeHost(m *Mapping) {
	d.addOwned(m.UserID, HostStream(m.PublicHost), HostTaken{Host: m.PublicHost, Path: m.PublicPath, MappingID: m.ID, UserID: m.UserID,
		Whole: m.Protocol == ProtocolTLS})
}

// freeHost plans that a mapping has them no longer.
func (d *Decision) freeHost(m *Mapping) {
	d.addOwned(m.UserID, HostStream(m.PublicHost), HostFreed{Host: m.PublicHost, Path: m.PublicPath})
}

// publicHost checks a name: labels of letters, digits and dashes, in lower case as
// [Origin.complete] makes it.
func (f *faults) publicHost(field, host string) {
	if host == "" {
		return
	}
	if len(host) > maxHostLength {
		f.add(field, fmt.Sprintf("must have up to %d characters, has %d", maxHostLength, len(host)))
		return
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > maxLabelLength || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			f.add(field, "must be a label of up to 63 letters, digits and dashes, for example brave-otter, or left out")
			return
		}
	}
}

// publicPath checks a prefix of paths. It is compared with what a visitor asks for
// letter by letter, so there is one way to write each: no escapes, no empty segment,
// none that is a dot or two.
func (f *faults) publicPath(field, path string) {
	if path == "/" {
		return
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/"
	bad := len(path) > maxPathLength || !strings.HasPrefix(path, "/") || strings.Trim(path, letters) != ""
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		bad = bad || segment == "" || segment == "." || segment == ".."
	}
	if bad {
		f.add(field, "must be a path such as /app: a slash before each segment, none at the end, no escapes")
	}
}

// PathBelow reports whether a path is a prefix or lies below it: /app holds
// /app and /app/x, and not /apple.
func PathBelow(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	return ok && (rest == "" || rest[0] == '/')
}
