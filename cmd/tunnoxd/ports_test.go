package main

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

func TestRangesOfPublicPorts(t *testing.T) {
	for text, want := range map[string]domain.PortRange{
		"20000-20099": {First: 20000, Last: 20099}, "1-1": {First: 1, Last: 1}, "20000": {First: 20000, Last: 20000},
		"20099-20000": {}, "0-5": {}, "": {}, "a-b": {}, "20000-70000": {}, "1-20000": {}, "20000-": {}, "-20000": {},
	} {
		got, err := parsePorts(text)
		if got != want || (err == nil) != (want != domain.PortRange{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// An address is what it says: 0.0.0.0 is IPv4 only, :: and nothing are both families.
func TestListenersAreOfTheFamilyTheyName(t *testing.T) {
	for host, want := range map[string][2]bool{ // reached over IPv4, over IPv6
		"0.0.0.0": {true, false}, "::": {true, true}, "": {true, true}, "127.0.0.1": {true, false}, "::1": {false, true},
	} {
		l, err := listenTCP(net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatalf("%q: %v", host, err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for i, from := range []string{"127.0.0.1", "::1"} {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(from, port), 5*time.Second)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want[i] {
				t.Errorf("%q over %s: %v", host, from, err)
			}
		}
		l.Close()
	}
}

// fullHouse takes a command when one certain port is among those drawn.
type fullHouse struct {
	httpapi.Executor
	free  int
	tries int
}

func (f *fullHouse) Submit(_ context.Context, s domain.Submission) (domain.Receipt, error) {
	f.tries++
	d, err := s.Command.Decide(f.states())
	if needed := new(domain.NeedStreams); errors.As(err, &needed) {
		return domain.Receipt{}, errors.New("not all streams are known")
	}
	_ = d
	return domain.Receipt{}, err
}

// states have every port taken but one.
func (f *fullHouse) states() domain.States {
	at := time.Unix(1, 0)
	user, client, quota := &domain.User{}, &domain.Client{}, &domain.Quota{}
	user.Apply(domain.UserCreated{UserID: domain.FirstUserID, Username: "ann"}, at)
	client.Apply(domain.ClientCreated{ClientID: domain.FirstClientID, UserID: domain.FirstUserID}, at)
	quota.Apply(domain.QuotaSet{Account: domain.FirstUserID}, at)
	states := domain.States{domain.UserStream(domain.FirstUserID): user, domain.ClientStream(domain.FirstClientID): client,
		domain.QuotaStream(domain.FirstUserID): quota, domain.MappingStream(1001): &domain.Mapping{}}
	for number := 20000; number <= 20099; number++ {
		port := &domain.Port{}
		if number != f.free {
			port.Apply(domain.PortTaken{Port: number, Protocol: domain.ProtocolTCP, MappingID: 1, UserID: 2}, at)
		}
		states[domain.PortStream(number)] = port
	}
	return states
}

// nodesOnly lets oneNode have a method of that name.
type nodesOnly = directory.Nodes

// oneNode is a directory with one forwarder that has public ports.
type oneNode struct{ nodesOnly }

func (oneNode) Nodes(context.Context, ...string) ([]directory.Node, error) {
	return []directory.Node{{ID: "node-001", Public: "h", FirstPort: 20000, LastPort: 20099}}, nil
}

// The last free port of a range is found, whichever it is, and none twice.
func TestTheLastFreePortIsFound(t *testing.T) {
	command := domain.CreateMapping{ID: 1001, UserID: domain.FirstUserID, TargetClientID: domain.FirstClientID, Protocol: domain.ProtocolTCP,
		Parts: domain.Parts{Service: domain.Service{TargetHost: "h", TargetPort: 1}}}
	const most = (100 + drawn - 1) / drawn
	for _, free := range []int{20000, 20050, 20099, 0} {
		house := &fullHouse{free: free}
		_, err := publicDesk{house, oneNode{}, time.Now}.Submit(t.Context(), domain.Submission{Command: command})
		if free == 0 && domain.CodeOf(err) != domain.CodePortsTaken || free != 0 && err != nil {
			t.Errorf("free is %d: %v", free, err)
		}
		if house.tries > most {
			t.Errorf("free is %d: %d tries, want at most %d", free, house.tries, most)
		}
	}
}
