package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

// publicDesk brings to commands that want something public what there is to be had now:
// the ranges of ports and the base domains that forwarders have announced, some ports
// and labels to choose from, and the time.
type publicDesk struct {
	httpapi.Executor
	nodes directory.Nodes
	now   func() time.Time
}

// Submit implements httpapi.Executor and control.Executor.
func (d publicDesk) Submit(ctx context.Context, s domain.Submission) (domain.Receipt, error) {
	return d.offer(ctx, s, d.Executor.Submit)
}

// Preview implements httpapi.Executor.
func (d publicDesk) Preview(ctx context.Context, s domain.Submission) (domain.Receipt, error) {
	return d.offer(ctx, s, d.Executor.Preview)
}

func (d publicDesk) offer(ctx context.Context, s domain.Submission, do func(context.Context, domain.Submission) (domain.Receipt, error)) (domain.Receipt, error) {
	command, ok := s.Command.(domain.PublicCommand)
	if !ok || !command.WantsPublic() {
		return do(ctx, s)
	}
	offer := domain.PublicOffer{Now: d.now().UTC()}
	nodes, err := d.nodes.Nodes(ctx)
	if err == nil {
		offer.Known, offer.Ports, offer.Domains = true, portRanges(nodes), baseDomains(nodes)
		offer.APIs = apiHosts(nodes)
	}
	// All ports in an order of chance, some at a time: the last free one is found too.
	left := portsOf(offer.Ports)
	rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	for hosts := 1; ; {
		n := min(len(left), drawn)
		offer.Draw, left = left[:n], left[n:]
		offer.Labels = drawLabels(drawn)
		s.Command = command.Offered(offer)
		r, err := do(ctx, s)
		switch code := domain.CodeOf(err); {
		case code == domain.CodePortsTaken && len(left) > 0:
		case code == domain.CodeHostsTaken && hosts < drawn:
			hosts++
		default:
			return r, err
		}
	}
}

// baseDomains gives the domains under which forwarders serve public hosts, each once
// for a protocol.
func baseDomains(nodes []directory.Node) map[domain.Protocol][]string {
	domains := map[domain.Protocol][]string{}
	for protocol, url := range hostsOf {
		for _, n := range nodes {
			if url(n) != "" {
				domains[protocol] = append(domains[protocol], n.BaseDomain)
			}
		}
		slices.Sort(domains[protocol])
		domains[protocol] = slices.Compact(domains[protocol])
	}
	return domains
}

// hostsOf gives where a node serves public hosts, by what their mappings carry: a URL
// with * for the host, "" for a node that does not.
var hostsOf = map[domain.Protocol]func(directory.Node) string{
	domain.ProtocolHTTP: func(n directory.Node) string { return n.HostsURL },
	domain.ProtocolTLS:  func(n directory.Node) string { return n.TLSURL },
}
