package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // lets the client ask for it
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

// Config says how to reach the control plane. Addresses and Trust are required; the
// zero value of each other field is its default.
type Config struct {
	// Addresses are host:port of the control planes. Calls go to all that answer, in
	// turn. A name means all of its addresses.
	Addresses []string
	Trust     Trust
	// Timeout bounds a call with all its attempts. Default 5 s.
	Timeout time.Duration
	// Attempt bounds one attempt, so that an attempt that hangs leaves time for another
	// one. Default 2 s.
	Attempt time.Duration
	// Retries is how many attempts may follow the first when nobody answered; -1 for
	// none. Default 3.
	Retries int
	// RetryPause is the pause before the first retry, half of it more or less. It
	// triples each time. Default 100 ms.
	RetryPause time.Duration
	// CircuitFailures in a row open the circuit: calls fail at once. Default 5.
	CircuitFailures int
	// CircuitPause is how long the circuit stays open at first; it doubles up to 5 s.
	// Default 500 ms.
	CircuitPause time.Duration
	Dial         func(ctx context.Context, address string) (net.Conn, error)
	Now          func() time.Time // for certificates and the circuit
	Metrics      *ClientMetrics
}

func (c *Config) complete() error {
	if len(c.Addresses) == 0 {
		return errors.New("no address of a control plane")
	}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("address of a control plane: %w", err)
		}
	}
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Attempt = cmp.Or(c.Attempt, 2*time.Second)
	c.Retries = max(0, cmp.Or(c.Retries, 3))
	c.RetryPause = cmp.Or(c.RetryPause, 100*time.Millisecond)
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Metrics == nil {
		c.Metrics = NewClientMetrics()
	}
	return nil
}

// Client calls the State service. Its methods may be called concurrently. An error is a
// *[domain.Error] when the control plane refused. It wraps [ErrUnavailable], with
// [domain.CodeStoreUnavailable], when nobody answered.
type Client struct {
	config  Config
	conn    *grpc.ClientConn
	state   controlpb.StateClient
	circuit *circuit
}

// spread sends calls in turn to the control planes that say they are serving.
var spread = fmt.Sprintf(`{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":%q}}`,
	controlpb.State_ServiceDesc.ServiceName)

// maxAnswer bounds a message from the control plane: the view of a client with a
// hundred thousand mappings.
const maxAnswer = 64 << 20

// Dial makes a client. It connects in the background: it is not an error if no control
// plane is there now.
func Dial(config Config) (*Client, error) {
	if err := config.complete(); err != nil {
		return nil, fmt.Errorf("dial control plane: %w", err)
	}
	secure, err := config.Trust.clientTLS(config.Now)
	if err != nil {
		return nil, fmt.Errorf("dial control plane: %w", err)
	}
	conn, err := connect(config, secure, spread)
	if err != nil {
		return nil, fmt.Errorf("dial control plane: %w", err)
	}
	conn.Connect()
	return &Client{config: config, conn: conn, state: controlpb.NewStateClient(conn),
		circuit: newCircuit(circuitOptions{failures: config.CircuitFailures, pause: config.CircuitPause, now: config.Now,
			open: config.Metrics.circuits.WithLabelValues("control")})}, nil
}

func connect(config Config, secure *tls.Config, service string) (*grpc.ClientConn, error) {
	return grpc.NewClient(resolverScheme+":///control",
		grpc.WithResolvers(resolvers{addresses: config.Addresses, lookup: net.DefaultResolver.LookupHost}),
		grpc.WithTransportCredentials(credentials.NewTLS(secure)),
		grpc.WithAuthority("control"),
		grpc.WithContextDialer(config.Dial),
		grpc.WithDefaultServiceConfig(service),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second,
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableRetry(), grpc.WithIdleTimeout(0), grpc.WithUserAgent("tunnox"),
	)
}

// Close ends the connections.
func (c *Client) Close() error { return c.conn.Close() }

// Reachable reports, without a call, whether a call would be sent.
func (c *Client) Reachable() bool {
	return !c.circuit.isOpen() && c.conn.GetState() == connectivity.Ready
}

// do makes a call, and repeats it when nobody answered. Every call may be repeated.
func (c *Client) do(ctx context.Context, method string, call func(ctx context.Context) error) (err error) {
	began := time.Now()
	defer func() {
		c.config.Metrics.calls.WithLabelValues(method, outcomeOf(err)).Inc()
		c.config.Metrics.latency.WithLabelValues(method).Observe(time.Since(began).Seconds())
	}()
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	pause := c.config.RetryPause
	for attempt := 0; ; attempt++ {
		if !c.circuit.allow() {
			if err != nil {
				return err // of the attempt before
			}
			return unreachable(errCircuit)
		}
		var what outcome
		what, err = c.attempt(ctx, call)
		if gone := left(caller); what == away && gone != nil {
			c.circuit.abandon() // the caller has left, which says nothing about the control plane
			return gone
		}
		c.circuit.report(what != away)
		if what != away || attempt == c.config.Retries {
			return err
		}
		if !wait.For(ctx, time.Duration(float64(pause)*(0.5+mathrand.Float64()))) {
			return err
		}
		pause *= 3
		c.config.Metrics.retries.Inc()
	}
}

// left says why the caller does not wait any more. A deadline counts from when it has
// passed: the other end knows it too, and its answer may arrive before our timer fires.
func left(caller context.Context) error {
	if err := caller.Err(); err != nil {
		return err
	}
	if deadline, ok := caller.Deadline(); ok && time.Until(deadline) <= 0 {
		return context.DeadlineExceeded
	}
	return nil
}

var errCircuit = errors.New("the last attempts failed, and the next one is made a little later")

// attempt makes one call.
func (c *Client) attempt(ctx context.Context, call func(ctx context.Context) error) (outcome, error) {
	bounded, cancel := context.WithTimeout(ctx, c.config.Attempt)
	defer cancel()
	return received(call(bounded))
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	case domain.CodeOf(err) != "":
		return "refused"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "failed"
}

// Ping gives the position of the log.
func (c *Client) Ping(ctx context.Context) (p domain.Position, err error) {
	err = c.do(ctx, "Ping", func(ctx context.Context) error {
		answer, err := c.state.Ping(ctx, &controlpb.PingRequest{})
		p = domain.Position(answer.GetPosition())
		return err
	})
	return p, err
}

// ClientView gives everything that is needed to serve a client, not older than min.
func (c *Client) ClientView(ctx context.Context, clientID int64, min domain.Position) (v domain.ClientView, err error) {
	err = c.do(ctx, "ClientView", func(ctx context.Context) error {
		answer, err := c.state.ClientView(ctx, &controlpb.Want{ClientId: clientID, MinPosition: int64(min)})
		if err == nil {
			v, err = viewOf(answer)
		}
		return err
	})
	return v, err
}

// Want names a client and the minimum position of its view.
type Want struct {
	ClientID int64
	Min      domain.Position
}

// Answer is a view, or the reason why there is none.
type Answer struct {
	View domain.ClientView
	Err  error
}

// Clients gives many views in one call, by client id. The error is for the call as a
// whole; a missing client is in its Answer.
func (c *Client) Clients(ctx context.Context, wants []Want) (map[int64]Answer, error) {
	answers := make(map[int64]Answer, len(wants))
	for len(wants) > 0 {
		n := min(len(wants), maxWants)
		if err := c.clients(ctx, wants[:n], answers); err != nil {
			return answers, err
		}
		wants = wants[n:]
	}
	return answers, nil
}

func (c *Client) clients(ctx context.Context, wants []Want, answers map[int64]Answer) error {
	return c.do(ctx, "Clients", func(ctx context.Context) error {
		request := &controlpb.ClientsRequest{}
		for _, w := range wants {
			// Answers of an earlier attempt are not asked for again.
			if _, ok := answers[w.ClientID]; !ok {
				request.Wants = append(request.Wants, &controlpb.Want{ClientId: w.ClientID, MinPosition: int64(w.Min)})
			}
		}
		stream, err := c.state.Clients(ctx, request)
		if err != nil {
			return err
		}
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if refusal := m.GetRefusal(); refusal != nil {
				answers[m.ClientId] = Answer{Err: errorOf(refusal)}
				continue
			}
			view, err := viewOf(m.GetView())
			answers[m.ClientId] = Answer{View: view, Err: err}
		}
		for _, w := range request.Wants {
			if _, ok := answers[w.ClientId]; !ok {
				return status.Errorf(codes.Internal, "client %d was not answered", w.ClientId)
			}
		}
		return nil
	})
}

// Register gives an identity to an agent that has only its key, and that has proved to
// own the key.
func (c *Client) Register(ctx context.Context, r domain.Registration) (clientID int64, err error) {
	request := &controlpb.RegisterRequest{IdempotencyKey: rand.Text(), PublicKey: r.PublicKey, Name: text(r.Name), Source: text(r.Source), Invite: r.Invite, Reachable: r.Reachable}
	err = c.do(ctx, "Register", func(ctx context.Context) error {
		answer, err := c.state.Register(ctx, request)
		clientID = answer.GetClientId()
		return err
	})
	return clientID, err
}

// Execute sends a client's command to be decided and executed. A command without a key
// gets one, because the call may be made several times.
func (c *Client) Execute(ctx context.Context, command domain.ClientCommand) (r domain.ClientResult, err error) {
	command.Key = cmp.Or(command.Key, rand.Text())
	form, data, err := domain.EncodeExchanged(command)
	if err != nil {
		return r, fmt.Errorf("encode command: %w", err)
	}
	request := &controlpb.ExecuteRequest{Form: int32(form), Command: data}
	err = c.do(ctx, "Execute", func(ctx context.Context) error {
		answer, err := c.state.Execute(ctx, request)
		if err == nil {
			r, err = domain.DecodeExchanged[domain.ClientResult](int(answer.GetForm()), answer.GetResult())
		}
		return err
	})
	return r, err
}

// Certify gets an identity that agents verify, for the host names and addresses at
// which they connect.
func (c *Client) Certify(ctx context.Context, names ...string) (Issued, error) {
	return c.issue(ctx, "Certify", names, c.state.Certify)
}

// Revoked gives those of some nodes that were revoked. When this node itself was, the
// error has the code [domain.CodeNodeRevoked].
func (c *Client) Revoked(ctx context.Context, nodes ...string) (revoked []string, err error) {
	for { // at least once: the answer is about this node too
		some := nodes[:min(len(nodes), maxStanding)]
		nodes = nodes[len(some):]
		err := c.do(ctx, "Standing", func(ctx context.Context) error {
			answer, err := c.state.Standing(ctx, &controlpb.StandingRequest{Nodes: some})
			if err == nil {
				revoked = append(revoked, answer.GetRevoked()...)
			}
			return err
		})
		if err != nil || len(nodes) == 0 {
			return revoked, err
		}
	}
}

// Renew gets a new identity of this node.
func (c *Client) Renew(ctx context.Context) (Issued, error) {
	return c.issue(ctx, "Renew", nil, c.state.Renew)
}

func (c *Client) issue(ctx context.Context, method string, names []string,
	call func(context.Context, *controlpb.CertificateRequest, ...grpc.CallOption) (*controlpb.Certificate, error)) (Issued, error) {
	return obtain(ctx, names, func(ctx context.Context, request []byte) (answer *controlpb.Certificate, err error) {
		err = c.do(ctx, method, func(ctx context.Context) error {
			answer, err = call(ctx, &controlpb.CertificateRequest{Request: request})
			return err
		})
		return answer, err
	})
}
