package services

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// Proxy stands before a server and makes the network to it sick. Its zero state
// passes everything on.
type Proxy struct {
	Addr string // who should go through it connects here

	proxy *toxiproxy.Proxy
}

// proxyLeaves are goroutines of the library that stay when a connection is cut
// while a toxic is put on or taken off: one end of its pipe has gone, and the
// other waits for it until the process ends. They are its own, and none of ours.
var proxyLeaves = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
	goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
	goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
}

// StartProxy starts a proxy for the server at upstream, host:port, which need not
// be there yet. It ends with the test.
func StartProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{Addr: addr, proxy: toxiproxy.NewProxy(server, upstream, addr, upstream)}
	if err := p.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Heal(t)
		p.proxy.Stop()
	})
	return p
}

// Cut ends all connections and refuses new ones.
func (p *Proxy) Cut() { p.proxy.Stop() }

// Delay holds everything up in both directions by so many milliseconds together.
func (p *Proxy) Delay(t testing.TB, ms int) {
	t.Helper()
	p.toxic(t, "upstream", "latency", map[string]int{"latency": ms / 2, "jitter": ms / 10})
	p.toxic(t, "downstream", "latency", map[string]int{"latency": ms - ms/2, "jitter": ms / 10})
}

// Swallow lets connections stay and be made, and nothing come through: a peer that
// is half open.
func (p *Proxy) Swallow(t testing.TB) {
	t.Helper()
	p.toxic(t, "upstream", "timeout", map[string]int{"timeout": 0})
	p.toxic(t, "downstream", "timeout", map[string]int{"timeout": 0})
}

func (p *Proxy) toxic(t testing.TB, stream, kind string, attributes map[string]int) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"name": kind + "_" + stream, "stream": stream, "type": kind, "attributes": attributes})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		t.Fatal(err)
	}
}

// Heal makes the network well again.
func (p *Proxy) Heal(t testing.TB) {
	t.Helper()
	p.proxy.Toxics.ResetToxics(context.Background())
	if err := p.proxy.Start(); err != nil && err != toxiproxy.ErrProxyAlreadyStarted {
		t.Fatal(err)
	}
}
