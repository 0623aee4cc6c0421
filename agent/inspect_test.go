package agent

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"testing"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// dials is an inspector that keeps how one dials a service again.
type dials struct {
	again func(context.Context) (net.Conn, error)
}

func (*dials) Begin(int64) (string, error) { return "http://127.0.0.1:4040/", nil }
func (*dials) End(int64)                   {}
func (*dials) Record(int64)                {}
func (*dials) Requests(int64, int) []Request {
	return nil
}

func (d *dials) Watch(_ int64, conn transport.Duplex, dial func(context.Context) (net.Conn, error)) transport.Duplex {
	d.again = dial
	return conn
}

// A service that waits for a PROXY header gets one on the connection of a replay too, or it
// would refuse the replay.
func TestReplaysBeginAsVisitorsDo(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	parts, err := json.Marshal(map[string]any{"proxy_protocol": "v1"})
	if err != nil {
		t.Fatal(err)
	}
	seen := &dials{}
	a := &Agent{inspector: seen}
	target := newTarget(a, Config{})
	open := &wirepb.Open{MappingId: 1000, Service: listener.Addr().String(), Options: string(parts),
		Peer: "198.51.100.7:4711", Local: "203.0.113.1:443"}
	target.watched(open, nil)
	conn, err := seen.again(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	service, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(service)
	if want := "PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n"; err != nil || string(said) != want {
		t.Errorf("the service hears %q (%v), want %q", said, err, want)
	}
}
