package control

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/resolver"

	"github.com/tunnox-net/tunnox/wait"
)

const (
	resolverScheme = "tunnox"
	resolveLimit   = 3 * time.Second
	resolvePause   = time.Second // between two lookups, however often gRPC asks
)

// resolvers turn a list of host:port into addresses for gRPC: every address of every
// name. gRPC asks again when a connection is lost, so control planes behind one name
// may be added and removed.
type resolvers struct {
	addresses []string
	lookup    func(ctx context.Context, host string) ([]string, error)
}

// Scheme implements [resolver.Builder].
func (resolvers) Scheme() string { return resolverScheme }

// Build implements [resolver.Builder].
func (r resolvers) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	one := &resolving{of: r, cc: cc, cancel: cancel, again: make(chan struct{}, 1)}
	one.running.Go(func() { one.run(ctx) })
	return one, nil
}

type resolving struct {
	of      resolvers
	cc      resolver.ClientConn
	cancel  context.CancelFunc
	again   chan struct{}
	running sync.WaitGroup
}

// ResolveNow implements [resolver.Resolver].
func (r *resolving) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// Close implements [resolver.Resolver].
func (r *resolving) Close() {
	r.cancel()
	r.running.Wait()
}

func (r *resolving) run(ctx context.Context) {
	for {
		all := r.resolve(ctx)
		if ctx.Err() != nil {
			return
		}
		state := resolver.State{}
		for _, a := range all {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
		}
		_ = r.cc.UpdateState(state) // gRPC asks again if it rejects the state
		if !wait.For(ctx, resolvePause) {
			return
		}
		select {
		case <-r.again:
		case <-ctx.Done():
			return
		}
	}
}

// resolve gives each address once. A name that cannot be resolved now is given
// unchanged: the dialler will report what is wrong with it.
func (r *resolving) resolve(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	var all []string
	for _, address := range r.of.addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			all = append(all, address)
			continue
		}
		if _, err := netip.ParseAddr(host); err == nil {
			all = append(all, address)
			continue
		}
		ips, err := r.of.lookup(ctx, host)
		if err != nil || len(ips) == 0 {
			all = append(all, address)
			continue
		}
		for _, ip := range ips {
			all = append(all, net.JoinHostPort(ip, port))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
