package flow

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// rangeMapping is what the API shows of a mapping with a range of public ports.
type rangeMapping struct {
	ID      int64           `json:"mapping_id"`
	Ports   json.RawMessage `json:"public_port"`
	Address string          `json:"public_address"`
}

// ownAddresses gives two addresses of this machine that no other test listens on.
func ownAddresses() (ports, service string) {
	return fmt.Sprintf("127.%d.%d.1", 20+rand.IntN(100), rand.IntN(250)), fmt.Sprintf("127.%d.%d.1", 120+rand.IntN(100), rand.IntN(250))
}

// listenAt is a service at an address and port that says its port and ends.
func listenAt(t testing.TB, host string, port int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(conn, port)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l
}

// leadsTo waits until the service behind a public port is the one that says so.
func leadsTo(t testing.TB, host string, port, service int) {
	t.Helper()
	programs.Eventually(t, pace.Guard, func() error {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(pace.Guard))
		if said, err := io.ReadAll(conn); err != nil || string(said) != strconv.Itoa(service) {
			return fmt.Errorf("port %d leads to %q, want %d, %v", port, said, service, err)
		}
		return nil
	})
}

// A mapping has a range of public ports: all or none, each to its own port of the service
// or all to one; a taken one is named and the others work; of two who ask for overlapping
// ranges one wins, and what was freed is kept.
func TestPublicRange(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		host, behind := ownAddresses()
		s := serve("--public-ports", "20000-21999", "--public-address", host)
		ann, bob := s.API.CreateUser(t, "ann"), s.API.CreateUser(t, "bob")
		targets := map[int64]programs.Client{ann.ID: s.API.CreateClient(t, ann.ID, "target"), bob.ID: s.API.CreateClient(t, bob.ID, "other")}
		s.Join(t, s.API, targets[ann.ID])
		s.API.WaitOnline(t, targets[ann.ID].ID)
		for port := 5000; port < 5003; port++ {
			listenAt(t, behind, port)
		}
		wanted := func(user int64, ports any, service string) map[string]any {
			return map[string]any{"user_id": user, "target_client_id": targets[user].ID, "protocol": "tcp", "public_port": ports, "target": behind + ":" + service}
		}
		// Each port to its own, through the command line and back.
		create := programs.Start(t, "tunnox", []string{"TUNNOX_API=" + s.API.URL, "TUNNOX_API_KEY=" + s.API.Key},
			"mapping", "create", "--user", "ann", "--target", "target", "--public-port", "21100-21102", "--service", behind+":5000-5002", "--json")
		err := create.Wait(pace.Guard)
		out := []byte(create.Said(1 << 16))
		var small rangeMapping
		if err != nil || json.Unmarshal(out, &small) != nil || string(small.Ports) != `"21100-21102"` || small.Address != host+":21100-21102" {
			t.Fatalf("created %s, %v", out, err)
		}
		for n := range 3 {
			leadsTo(t, host, 21100+n, 5000+n)
		}
		s.API.Do(t, http.MethodPut, path("/mappings/%d", small.ID), map[string]any{"public_port": "21101-21103"}, &small)
		for n := range 3 {
			leadsTo(t, host, 21101+n, 5000+n)
		}
		refusedAt(t, host+":21100")
		for _, wrong := range []any{"21109-21105", "21990-22000", "20000-21024"} {
			answer, err := s.API.Call(http.MethodPost, "/api/v1/mappings", wanted(ann.ID, wrong, "5000"))
			if err != nil || answer.Status < 400 || answer.Problem().Code == "" {
				t.Errorf("%v: %d %s, %v", wrong, answer.Status, answer.Body, err)
			}
		}
		// A thousand and one, of which another program has one.
		taken := listenAt(t, host, 20500)
		before, err := s.Status("status", "VmRSS")
		if err != nil {
			t.Fatal(err)
		}
		s.API.Do(t, http.MethodPost, "/api/v1/mappings?dry_run=true", wanted(ann.ID, "20000-21000", "5001"), nil)
		var many rangeMapping
		watch := pace.Measure(t)
		began := time.Now()
		created := s.API.Do(t, http.MethodPost, "/api/v1/mappings", wanted(ann.ID, "20000-21000", "5001"), &many)
		answered := time.Since(began)
		accept := func() {
			t.Helper()
			for port := 20000; port <= 21000; port++ {
				programs.Eventually(t, pace.Guard, func() error {
					conn, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
					if err == nil {
						err = conn.Close()
					}
					return err
				})
			}
		}
		programs.Eventually(t, pace.Guard, func() error {
			n, err := s.Metric(`tunnox_public_ports{state="open"}`)
			if err == nil && n != 1003 { // with the three above
				err = fmt.Errorf("%v ports are open", n)
			}
			return err
		})
		after, err := s.Status("status", "VmRSS")
		if err != nil {
			t.Fatal(err)
		}
		accept()
		took := time.Since(began)
		t.Logf("1,001 ports: answered after %v, all accept after %v (slowness %.1f), %d kB more memory", answered, took, watch.Slowness(), after-before)
		if took > watch.Allow(5*time.Second) && !pace.Race {
			t.Errorf("1,001 ports accept after %v", took)
		}
		if more := after - before; more > 60_000 && !pace.Race {
			t.Errorf("1,001 ports cost %d kB", more)
		}
		for _, port := range []int{20000, 20777, 21000} {
			leadsTo(t, host, port, 5001)
		}
		if open, err := s.Metric(`tunnox_public_ports{state="failed"}`); err != nil || open != 1 {
			t.Errorf("%v ports have failed, %v", open, err)
		}
		programs.Eventually(t, pace.Guard, func() error {
			answer := s.API.Do(t, http.MethodGet, "/api/v1/nodes", nil, nil)
			if !strings.Contains(string(answer.Body), `"20500: tcp:`) {
				return fmt.Errorf("the nodes are %s", answer.Body)
			}
			return nil
		})
		_ = taken.Close()
		leadsTo(t, host, 20500, 5001)
		// They are there again after a crash, and in the past.
		s.Kill()
		s.Restart(t)
		began = time.Now()
		accept()
		t.Logf("after a restart all accept after %v", time.Since(began))
		leadsTo(t, host, 20123, 5001)
		var past rangeMapping
		s.API.Do(t, http.MethodGet, path("/mappings/%d?as_of=%s", many.ID, created.Header.Get("X-Position")), nil, &past)
		if string(past.Ports) != `"20000-21000"` {
			t.Errorf("as of its creation it has %s", past.Ports)
		}
		s.API.Do(t, http.MethodDelete, path("/mappings/%d", many.ID), nil, nil)
		refusedAt(t, host+":20123")
		s.API.Refused(t, http.StatusConflict, "port_taken", http.MethodPost, "/api/v1/mappings", wanted(bob.ID, "20999-21001", "5001"))
		leadsTo(t, host, 21102, 5001)
		// Of two who ask at once for ranges with a port in common one has all of its own.
		for round := range 10 {
			low := 21200 + 10*round
			var asking sync.WaitGroup
			answers := make([]programs.Answer, 6)
			for i := range answers {
				asking.Go(func() {
					user, ports := ann.ID, fmt.Sprintf("%d-%d", low, low+5)
					if i%2 == 1 {
						user, ports = bob.ID, fmt.Sprintf("%d-%d", low+5, low+9)
					}
					var err error
					if answers[i], err = s.API.Call(http.MethodPost, "/api/v1/mappings", wanted(user, ports, "5001")); err != nil {
						t.Error(err)
					}
				})
			}
			asking.Wait()
			winner := -1
			for i, a := range answers {
				switch {
				case a.Status == http.StatusCreated && winner < 0:
					winner = i % 2
				case a.Status != http.StatusConflict:
					t.Fatalf("round %d: %d answers %d %s, after %d", round, i, a.Status, a.Body, winner)
				}
			}
			// The loser's other ports are free for anybody.
			free := map[int]string{0: fmt.Sprintf("%d-%d", low+6, low+9), 1: fmt.Sprintf("%d-%d", low, low+4)}
			if winner < 0 {
				t.Fatalf("round %d: nobody has a range", round)
			}
			s.API.Do(t, http.MethodPost, "/api/v1/mappings", wanted([]int64{ann.ID, bob.ID}[winner], free[winner], "5001"), nil)
		}
	})
}
