package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/tunnox-net/tunnox/transport"
)

// The cost that any process in between has is measured together with ours: relays at
// the same places, which only carry bytes from one leg to the next, over TLS and over
// gRPC. They do the same as our programs do for either (several records in a system
// call, messages of 64 KiB that are passed through, large windows). They have no
// multiplexer, no limits, no counters and no half-closes.

// relayCommand makes this program a relay: bench relay IN OUT NEXT DIR, where IN and
// OUT are tcp, tls or grpc, and DIR has the certificate.
const relayCommand = "relay"

// bareWays are chains of relays to the service: source, forwarder and target, and the
// same with two forwarders that speak gRPC. middle are the forwarders.
func bareWays(l *lab, service int) (one, two way, middle [2][]int) {
	one = chain(l, service, "bare TLS", "tcp", "tls", "tls", "tcp")
	two = chain(l, service, "bare gRPC", "tcp", "tls", "grpc", "tls", "tcp")
	return one, two, [2][]int{one.pids[1:2], two.pids[1:3]}
}

// spliceWay is three relays that encrypt nothing and leave the bytes in the kernel: the
// least that three processes in a row cost.
func spliceWay(l *lab, service int) way {
	return chain(l, service, "3 relays", "tcp", "tcp", "tcp", "tcp")
}

// chain starts a relay between each two legs.
func chain(l *lab, service int, name string, legs ...string) (w way) {
	dir, next := l.TempDir(), fmt.Sprintf("127.0.0.1:%d", service)
	for i := len(legs) - 1; i > 0; i-- {
		pid, address := startRelay(l, legs[i-1], legs[i], next, dir)
		w.pids, next = append(w.pids, pid), address
	}
	w.name = name
	_, port, err := net.SplitHostPort(next)
	if err == nil {
		_, err = fmt.Sscan(port, &w.port)
	}
	if err != nil {
		l.Fatal(err)
	}
	return w
}

func startRelay(l *lab, in, out, next, dir string) (pid int, address string) {
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.Command(self, relayCommand, in, out, next, dir)
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal("start a relay: ", err)
	}
	l.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	})
	address, err = bufio.NewReader(said).ReadString('\n')
	if err != nil {
		l.Fatal("a relay did not start: ", err)
	}
	return cmd.Process.Pid, strings.TrimSpace(address)
}

// relay is the program of one relay: it prints its address, and never ends without an
// error.
func relay(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s IN OUT NEXT DIR", relayCommand)
	}
	in, out, next, dir := args[0], args[1], args[2], args[3]
	cert, err := transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return err
	}
	dial, err := dialer(out, next, cert)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	carry := func(from io.ReadWriteCloser) {
		to, err := dial()
		if err != nil {
			_ = from.Close()
			fmt.Fprintln(os.Stderr, "relay:", err)
			return
		}
		join(from, to)
	}
	if in == "grpc" {
		return serveBare(tlsListener{ln, cert}, carry)
	}
	if in == "tls" {
		ln = tlsListener{ln, cert}
	}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go carry(conn)
	}
}

// join copies in both directions until either ends. Between two sockets the kernel does it.
func join(a, b io.ReadWriteCloser) {
	done := make(chan struct{}, 2)
	oneWay := func(to io.Writer, from io.Reader) {
		if socket, ok := to.(*net.TCPConn); ok {
			if _, ok := from.(*net.TCPConn); ok {
				_, _ = socket.ReadFrom(from) // splices
				done <- struct{}{}
				return
			}
		}
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if _, failed := to.Write(buf[:n]); failed != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		done <- struct{}{}
	}
	go oneWay(a, b)
	go oneWay(b, a)
	<-done
	_ = a.Close()
	_ = b.Close()
	<-done
}

func dialer(kind, next string, cert tls.Certificate) (func() (io.ReadWriteCloser, error), error) {
	overTLS := func() (net.Conn, error) {
		raw, err := net.Dial("tcp", next)
		if err != nil {
			return nil, err
		}
		below := transport.NewRecords(raw)
		return leg{tls.Client(below, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
			InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}), below}, nil
	}
	switch kind {
	case "tcp":
		return func() (io.ReadWriteCloser, error) { return net.Dial("tcp", next) }, nil
	case "tls":
		return func() (io.ReadWriteCloser, error) { return overTLS() }, nil
	case "grpc":
		cc, err := grpc.NewClient("passthrough:///"+next, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return overTLS() }),
			grpc.WithStaticStreamWindowSize(bareWindow), grpc.WithStaticConnWindowSize(16*bareWindow),
			grpc.WithWriteBufferSize(68<<10), grpc.WithReadBufferSize(64<<10),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bareCodec{})))
		if err != nil {
			return nil, err
		}
		return func() (io.ReadWriteCloser, error) {
			ctx, cancel := context.WithCancel(context.Background())
			rpc, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/bare/Carry")
			if err != nil {
				cancel()
				return nil, err
			}
			return &bareStream{rpc: rpc, cancel: cancel}, nil
		}, nil
	}
	return nil, fmt.Errorf("no leg of kind %q", kind)
}

const bareWindow = 1 << 20

// tlsListener asks for a certificate, as forwarders do.
type tlsListener struct {
	net.Listener
	cert tls.Certificate
}

func (ln tlsListener) Accept() (net.Conn, error) {
	raw, err := ln.Listener.Accept()
	if err != nil {
		return nil, err
	}
	below := transport.NewRecords(raw)
	return leg{tls.Server(below, &tls.Config{Certificates: []tls.Certificate{ln.cert}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}), below}, nil
}

// leg reads and writes several TLS records in a system call.
type leg struct {
	*tls.Conn
	below transport.Records
}

func (l leg) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	for err == nil && n < len(b) && l.below.Whole() {
		var more int
		more, err = l.Conn.Read(b[n:])
		n += more
	}
	return n, err
}

func (l leg) Write(b []byte) (int, error) {
	if len(b) <= 16<<10 {
		return l.Conn.Write(b)
	}
	if err := l.Handshake(); err != nil { // the handshake must not be gathered
		return 0, err
	}
	l.below.Gather()
	n, err := l.Conn.Write(b)
	if failed := l.below.Flush(); err == nil {
		err = failed
	}
	return n, err
}

func serveBare(ln net.Listener, carry func(io.ReadWriteCloser)) error {
	server := grpc.NewServer(grpc.ForceServerCodecV2(bareCodec{}), grpc.WriteBufferSize(68<<10), grpc.ReadBufferSize(64<<10),
		grpc.StaticStreamWindowSize(bareWindow), grpc.StaticConnWindowSize(16*bareWindow))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "bare", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Carry", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, rpc grpc.ServerStream) error {
			ctx, cancel := context.WithCancel(rpc.Context())
			defer cancel()
			go carry(&bareStream{rpc: rpc, cancel: cancel})
			<-ctx.Done() // also ends a RecvMsg that is still waiting
			return nil
		},
	}}}, nil)
	return server.Serve(ln)
}

// bareCodec passes the bytes of a message through.
type bareCodec struct{}

func (bareCodec) Name() string { return "proto" }

func (bareCodec) Marshal(v any) (mem.BufferSlice, error) { return v.(mem.BufferSlice), nil }

func (bareCodec) Unmarshal(data mem.BufferSlice, v any) error {
	data.Ref()
	*v.(*mem.BufferSlice) = data
	return nil
}

// bareStream is an RPC whose messages are pieces of a stream.
type bareStream struct {
	rpc    grpc.Stream
	cancel context.CancelFunc
	rest   *mem.Reader
}

func (s *bareStream) Read(b []byte) (int, error) {
	for s.rest == nil || s.rest.Remaining() == 0 {
		var message mem.BufferSlice
		if err := s.rpc.RecvMsg(&message); err != nil {
			return 0, err
		}
		s.rest = message.Reader()
		message.Free()
	}
	return s.rest.Read(b)
}

func (s *bareStream) Write(b []byte) (int, error) {
	err := s.rpc.SendMsg(mem.BufferSlice{mem.Copy(b, mem.DefaultBufferPool())})
	return len(b), err
}

func (s *bareStream) Close() error {
	s.cancel()
	return nil
}
