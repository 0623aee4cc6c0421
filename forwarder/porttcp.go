package forwarder

import (
	"errors"
	"net"

	"github.com/tunnox-net/tunnox/proxyheader"
	"github.com/tunnox-net/tunnox/wait"
)

// tcpPort is a public port whose connections become a stream each.
type tcpPort struct {
	net.Listener
	p       *ports
	key     portKey
	mapping int64
}

func openTCP(p *ports, key portKey, mapping int64) (portSocket, error) {
	l, err := p.listen.Listen(key.number)
	if err != nil {
		return nil, err
	}
	return &tcpPort{l, p, key, mapping}, nil
}

// serve takes connections until the socket is closed. Running out of descriptors, for
// example, does not end it.
func (t *tcpPort) serve() {
	var pause wait.Backoff
	for {
		conn, err := t.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			t.p.complain(t.key, t.mapping, err)
			pause.Wait(t.p.f.ctx)
			continue
		}
		pause.Reset()
		from := &fromPort{f: t.p.f, port: t.key.number, mapping: t.mapping}
		switch conn := conn.(type) {
		case *net.TCPConn:
			t.p.f.visit(from, conn, nil)
		case *proxyheader.Conn:
			t.p.f.visit(from, conn.TCPConn, conn)
		default:
			_ = conn.Close()
		}
	}
}
