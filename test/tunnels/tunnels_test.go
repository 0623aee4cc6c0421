package tunnels

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestFirstMinutes: from a server to a public address that answers, with two commands
// of a machine that knew nothing of it. Ctrl-C leaves nothing behind.
func TestFirstMinutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := service(t, "web")
	watch := pace.Measure(t)
	began := time.Now()
	laptop := w.machine("laptop")
	tcp := laptop.tunnel("tcp", strconv.Itoa(port))
	answers(t, tcp.ready.Address, "web")
	took := time.Since(began)
	t.Logf("from an invitation to the first byte: %v", took.Round(time.Millisecond))
	if took > watch.Allow(5*time.Second) {
		t.Errorf("from an invitation to the first byte: %v, want less than 5 s of a calm machine", took)
	}
	if got := w.mappings(); len(got) != 1 {
		t.Errorf("mappings %v", got)
	}
	tcp.end(t)
	if got := w.mappings(); len(got) != 0 {
		t.Errorf("after its end there are the mappings %v", got)
	}
	silent(t, tcp.ready.Address)
	if got := w.events("mapping_deleted"); len(got) != 1 || !strings.HasPrefix(got[0], "client:") {
		t.Errorf("deleted by %v", got)
	}
}

// TestWhatIsKeptStays: with --keep the mapping outlives the program, and tunnox agent
// serves it.
func TestWhatIsKeptStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--held-grace", "1s")
	laptop := w.machine("laptop")
	tcp := laptop.tunnel("tcp", strconv.Itoa(service(t, "web")), "--keep")
	answers(t, tcp.ready.Address, "web")
	tcp.end(t)
	laptop.start("agent")
	answers(t, tcp.ready.Address, "web")
	w.left(1)
}

// TestTheSameAgain kills what there is, one after the other. The address stays, and
// nobody does anything for it but to start again what was killed.
func TestTheSameAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop, desk := w.machine("laptop"), w.reachable("desk")
	port := strconv.Itoa(service(t, "web"))
	tcp := laptop.tunnel("tcp", port)
	desk.start("agent")
	listen := strconv.Itoa(programs.FreePort(t))
	forward := laptop.tunnel("forward", listen, "desk:"+port)
	all := func(when string) {
		t.Helper()
		t.Log(when)
		answers(t, tcp.ready.Address, "web")
		answers(t, forward.ready.Listen, "web")
		if got := w.mappings(); len(got) != 2 {
			t.Errorf("%s there are the mappings %v", when, got)
		}
	}
	all("at first")
	ids := w.mappings()

	w.Kill()
	w.Restart(t)
	all("when the server was killed")

	// The first program runs the agent, the second has asked it to.
	address := tcp.ready.Address
	tcp.Kill()
	all2 := laptop.tunnel("tcp", port)
	if all2.ready.Address != address {
		t.Errorf("the address is %s now, and was %s", all2.ready.Address, address)
	}
	tcp = all2
	all("when the program with the agent was killed")

	forward.Kill()
	forward = laptop.tunnel("forward", listen, "desk:"+port)
	all("when the other one was killed")
	if got := w.mappings(); !slices.Equal(got, ids) {
		t.Errorf("the mappings are %v, and were %v", got, ids)
	}

	// In order now: the one that runs the agent ends, and the other goes on.
	forward.end(t)
	answers(t, tcp.ready.Address, "web")
	w.left(1)
	tcp.end(t)
	w.left(0)
}

// TestOneAgentOfAMachine: where tunnox agent runs, programs in the foreground ask it; and
// when it is killed they go on without.
func TestOneAgentOfAMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop := w.machine("laptop")
	port := strconv.Itoa(service(t, "web"))
	running := laptop.start("agent")
	running.Says("connected", limit)
	one, two := laptop.tunnel("tcp", port), laptop.tunnel("tcp", port)
	if one.ready.Address == two.ready.Address {
		t.Errorf("both have %s", one.ready.Address)
	}
	both := func() {
		t.Helper()
		answers(t, one.ready.Address, "web")
		answers(t, two.ready.Address, "web")
	}
	both()
	running.Kill()
	both()
	again := laptop.start("agent") // one of the programs is the agent now
	if status := again.Fails(limit); status != 1 || !strings.Contains(again.Said(1<<10), "runs with this identity already") {
		t.Errorf("a second agent ended with %d: %s", status, again.Said(1<<10))
	}
	one.end(t)
	answers(t, two.ready.Address, "web")
	w.left(1)
	two.end(t)
	w.left(0)
	if said := running.Said(1 << 20); strings.Contains(said, "another agent has this identity") {
		t.Errorf("they fought over the identity:\n%s", said)
	}
}

// TestExposeAndGet: a service goes from one machine to another by a code, and a third
// one comes too late with it.
func TestExposeAndGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	office, home := w.machine("office"), w.machine("home")
	port := service(t, "db")
	watch := pace.Measure(t)
	began := time.Now()
	expose := office.tunnel("expose", strconv.Itoa(port))
	if left := time.Until(expose.ready.Expires); left < 50*time.Minute || left > 70*time.Minute {
		t.Errorf("the code expires at %v", expose.ready.Expires)
	}
	get := home.tunnel("get", expose.ready.Code)
	answers(t, get.ready.Listen, "db")
	took := time.Since(began)
	t.Logf("from expose to the first byte at the other machine: %v", took.Round(time.Millisecond))
	if took > watch.Allow(5*time.Second) {
		t.Errorf("from expose to the first byte: %v, want less than 5 s of a calm machine", took)
	}
	if _, got, _ := net.SplitHostPort(get.ready.Listen); got == strconv.Itoa(port) {
		t.Errorf("it listens on %s, which the service has on this machine", get.ready.Listen)
	}
	if said := office.refused(3, "get", expose.ready.Code); !strings.Contains(said, "used up") {
		t.Errorf("a second use: %s", said)
	}
	if said := home.refused(3, "get", strings.ToLower(expose.ready.Code[:len(expose.ready.Code)-1])+"x"); !strings.Contains(said, "There is no share with this code") {
		t.Errorf("a wrong code: %s", said)
	}

	// Somebody without an account gets it too.
	other := office.tunnel("expose", strconv.Itoa(port), "--expires", "2d")
	stranger := programs.Start(t, "tunnox", nil, "get", other.ready.Code, "--json", "--state", filepath.Join(t.TempDir(), "s"), "--server", w.Agents+"#"+w.Pin)
	answers(t, readyOf(t, stranger).Listen, "db")

	// Killed and started again, the listener and the connection are the same.
	listen := get.ready.Listen
	get.Kill()
	get = home.tunnel("get", expose.ready.Code)
	if get.ready.Listen != listen {
		t.Errorf("it listens on %s now, and did on %s", get.ready.Listen, listen)
	}
	answers(t, listen, "db")
	expose.Kill()
	expose = office.tunnel("expose", strconv.Itoa(port))
	answers(t, listen, "db")

	// The end of the one that shares is the end of what was made of it.
	expose.end(t)
	if status := get.Fails(2 * limit); status != 3 || !strings.Contains(get.Said(1<<12), "ended at the other side") {
		t.Errorf("the other side ended with %d: %s", status, get.Said(1<<12))
	}
	other.end(t)
	stranger.Fails(2 * limit)
	w.left(0)
}

// TestWhatIsLeftBehindEnds: a program that is killed and not started again leaves
// nothing; the control plane ends its mapping, and no other.
func TestWhatIsLeftBehindEnds(t *testing.T) {
	grace := []string{"--held-grace", "3s"}
	first := programs.FreePort(t)
	public := []string{"--public-ports", fmt.Sprintf("%d-%d", first, first+9), "--public-address", "127.0.0.1"}
	for form, start := range map[string]func(t *testing.T) *programs.Server{
		"embedded": func(t *testing.T) *programs.Server { return programs.Serve(t, append(public, grace...)...) },
		"two control planes": func(t *testing.T) *programs.Server {
			c := programs.StartClusterWith(t, 1, services.Postgres(t), services.Redis(t), grace, public...)
			programs.StartControlBeside(t, "127.0.0.9", c.Control)
			s := *c.Server()
			s.Agents, s.Pin = c.Forwarders[0].Agents, c.Forwarders[0].Pin
			return &s
		},
	} {
		t.Run(form, func(t *testing.T) {
			w := worldOf(t, start(t))
			laptop, desk := w.machine("laptop"), w.machine("desk")
			port := strconv.Itoa(service(t, "web"))
			staying, killed := desk.tunnel("tcp", port), laptop.tunnel("tcp", port)
			answers(t, killed.ready.Address, "web")
			killed.Kill()
			w.left(1)
			answers(t, staying.ready.Address, "web")
			if got := w.events("mapping_deleted"); !slices.Equal(got, []string{"system"}) {
				t.Errorf("deleted by %v, want once by the system", got)
			}
			// Its user has the port again, for the same service, when it comes late.
			_, number, _ := net.SplitHostPort(killed.ready.Address)
			late := laptop.tunnel("tcp", port, "--port", number)
			if late.ready.Address != killed.ready.Address {
				t.Errorf("it has %s now, and had %s", late.ready.Address, killed.ready.Address)
			}
		})
	}
}

// TestRefusals: each is one sentence that says what to do, with a status for scripts.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop := w.machine("laptop")
	port := service(t, "web")
	has := laptop.tunnel("tcp", strconv.Itoa(port))
	_, taken, _ := net.SplitHostPort(has.ready.Address)
	busy := strconv.Itoa(port) // the service listens there
	for _, tt := range []struct {
		status int
		want   string
		args   []string
	}{
		{2, "want the service", []string{"tcp"}},
		{2, `"a:b:c" is no service`, []string{"tcp", "a:b:c"}},
		{2, "a number from 1 to 65535", []string{"tcp", "70000"}},
		{2, "the public port 70000", []string{"tcp", "80", "--port", "70000"}},
		{4, "is taken", []string{"tcp", "80", "--port", taken}},
		{3, "No forwarder has the public port 80. Choose of", []string{"tcp", "80", "--port", "80"}},
		{3, `No client of yours is called "nobody"`, []string{"forward", "15433", "nobody:5432"}},
		{2, "want CLIENT:PORT", []string{"forward", "15433", "nobody"}},
		{4, "Another program listens on 127.0.0.1:" + busy, []string{"forward", busy, "laptop:5432"}},
		{2, "the code is damaged", []string{"get", "12345-ABCDE"}},
		{3, "There is no share with this code. Check it, or ask for another one", []string{"get", "1234-ABCDE-FGHIJ-KLMNP-QRSTU"}},
		{3, "was used up, was revoked or has expired. Ask for another one", []string{"get", w.share(0)}},
		{3, "was used up, was revoked or has expired. Ask for another one", []string{"get", w.share(time.Second)}},
		{2, "an invitation, not the code of a service: use it with tunnox join", []string{"get", "tnxj_AQAAA"}},
		{2, "copy all of it once more", []string{"join", "tnxj_AQAAA"}},
		{2, `begins with "tnxj_"`, []string{"join", "hello"}},
		{2, "there is no directory", []string{"http", "./nowhere"}},
		{2, "name another file with --file", []string{"up", "--file", "nowhere.yaml"}},
		{2, "unknown flag: --prot; see tunnox tcp --help", []string{"tcp", "80", "--prot", "1"}},
		{2, "the fingerprint is not that of " + w.Agents, []string{"expose", "80", "--server", w.Agents + "#sha256:" + strings.Repeat("a", 64)}},
		{4, "Another program listens on 127.0.0.1:" + busy, []string{"socks", "laptop", "--listen", busy}},
		{2, "--uses 0", []string{"expose", "80", "--uses", "0"}},
	} {
		said := laptop.refused(tt.status, tt.args...)
		if !strings.Contains(said, tt.want) {
			t.Errorf("%v said %q, want %q", tt.args, said, tt.want)
		}
		if strings.Count(strings.TrimSpace(said), "\n") > 1 {
			t.Errorf("%v said more than a sentence: %q", tt.args, said)
		}
	}
	w.left(1)
	nobody := &machine{w: w, state: t.TempDir()}
	if said := nobody.refused(2, "tcp", "80"); !strings.Contains(said, "tunnox join") {
		t.Errorf("a machine that has not joined is told %q", said)
	}
	if said := nobody.refused(3, "expose", "80", "--server", w.Agents, "--pin", w.Pin); !strings.Contains(said, "join with an invitation") {
		t.Errorf("a stranger who shares is told %q", said)
	}
	// Nothing listens at the service: a word about it, and the tunnel waits.
	later := programs.FreePort(t)
	waiting := laptop.tunnel("tcp", strconv.Itoa(later))
	waiting.Says("no service answers at 127.0.0.1:"+strconv.Itoa(later), limit)
	// Two clients of one name are told apart by their ids.
	w.machine("twin")
	w.machine("twin")
	if said := laptop.refused(3, "forward", "15433", "twin:80"); !strings.Contains(said, "say which by its id, 6") {
		t.Errorf("of two clients of one name is said %q", said)
	}
	// A machine whose user has not let others lead connections to it.
	w.machine("closed")
	if said := laptop.refused(3, "forward", "15434", "closed:80"); !strings.Contains(said, "--commands all") {
		t.Errorf("of a machine that lets nobody in is said %q", said)
	}
	// A machine that is away: the tunnel waits, and says at the first connection what to do.
	w.reachable("away")
	away := laptop.tunnel("forward", strconv.Itoa(programs.FreePort(t)), "away:80")
	_ = ask(away.ready.Listen, "")
	away.Says("a connection failed: the target client is not connected; run tunnox agent on that machine", limit)
	away.end(t)
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(text)) == "1024" {
		desk := w.machine("desk") // whose agent is this program, not one of root's
		args := []string{"forward", "81", "away:80", "--state", desk.state}
		var user *programs.Process
		if os.Geteuid() == 0 { // root without this capability is as anybody else
			user = programs.Start(t, "/usr/bin/setpriv", nil, append([]string{"--bounding-set=-net_bind_service", filepath.Join(programs.Build(t), "tunnox")}, args...)...)
		} else {
			user = programs.Start(t, "tunnox", nil, args...)
		}
		if got := user.Fails(limit); got != 3 || !strings.Contains(user.Said(1<<10), "may not listen on 127.0.0.1:81: ports below 1024 are for root, so choose another one") {
			t.Errorf("a port below 1024: %d, %s", got, user.Said(1<<10))
		}
	}
	waiting.end(t)
	has.end(t)
	code := w.invite()
	if joined := programs.Start(t, "tunnox", nil, "join", code, "--state", filepath.Join(t.TempDir(), "one")); joined.Wait(limit) != nil {
		t.Errorf("join: %s", joined.Said(1<<10))
	}
	if said := refused(t, 3, "join", code, "--state", filepath.Join(t.TempDir(), "two")); !strings.Contains(said, "was used up, was revoked or has expired") || !strings.Contains(said, "ask whoever invited you for another") {
		t.Errorf("of an invitation that was used is said %q", said)
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if said := laptop.refused(1, "tcp", "80", "--timeout", "1s"); !strings.Contains(said, "cannot reach "+w.Agents+": nothing listens there") || !strings.Contains(said, "is the server running") {
		t.Errorf("without a server is said %q", said)
	}
}

// TestALongAbsence: who was away for longer than the grace finds the same port, because
// it is kept for its user.
func TestALongAbsence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--held-grace", "1s")
	laptop := w.machine("laptop")
	tcp := laptop.tunnel("tcp", strconv.Itoa(service(t, "web")))
	answers(t, tcp.ready.Address, "web")
	var clients struct {
		Items []struct {
			ID int64 `json:"client_id"`
		}
	}
	w.API.Do(t, http.MethodGet, "/api/v1/clients?limit=1", nil, &clients)
	path := fmt.Sprintf("/api/v1/clients/%d/", clients.Items[0].ID)
	w.API.Do(t, http.MethodPost, path+"disable", nil, nil)
	w.left(0)
	w.API.Do(t, http.MethodPost, path+"enable", nil, nil)
	programs.Eventually(t, 2*limit, func() error { return ask(tcp.ready.Address, "web") })
	w.left(1)

	// What somebody deletes while it is connected is not made anew.
	w.API.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", w.mappings()[0]), nil, nil)
	if status := tcp.Fails(2 * limit); status != 3 || !strings.Contains(tcp.Said(1<<12), "somebody has deleted its mapping") {
		t.Errorf("it ended with %d: %s", status, tcp.Said(1<<12))
	}
}
