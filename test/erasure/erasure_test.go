package erasure

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

// What is about ann, each with a text that stands nowhere else. The addresses are of the
// loopback network, from which this test asks and its agents connect.
const (
	username, renamed   = "zq-username", "zq-renamed"
	mail, otherMail     = "zq-mail@example.org", "zq-other@example.org"
	clientName, machine = "zq-client", "zq-machine"
	description         = "zq-description"
	hostName            = "zq-hostname"
	mappingName         = "zq-mapping"
	targetHost          = "zq-target.example.net"
	socketPath          = "zq-socket"
	listenAddress       = "127.87.65.43"
	visitors            = "203.0.113.77"
	visitorName         = "zq-visitor"
	headerValue         = "zq-header"
	publicHost          = "zq-label"
	publicPath          = "zq-path"
	ownDomain           = "zq-shop.example.net"
	shareName           = "zq-share"
	shareHost           = "zq-shared.example.net"
	inviteName          = "zq-invite"
	keyName             = "zq-key"
	hookURL, hookText   = "zq-hook", "zq-hooktext"
	fromAgentName       = "zq-fromagent"
	loginAddress        = "127.77.66.51"
	keyAddress          = "127.77.66.52"
	agentAddress        = "127.77.66.53"
	anonymousAddress    = "127.77.66.54"
)

var values = []string{username, renamed, mail, otherMail, clientName, machine, description, hostName, mappingName, targetHost, socketPath,
	listenAddress, visitors, visitorName, headerValue, publicHost, publicPath, ownDomain, shareName, shareHost, inviteName, keyName, hookURL,
	hookText, fromAgentName, loginAddress, keyAddress, agentAddress, anonymousAddress}

// form is a way to run Tunnox: its servers, and its stores besides their folders.
type form struct {
	t        *testing.T
	servers  []*programs.Server // the first has the API, the last serves agents
	postgres string
	redis    string
	dataKeys []string
}

func (f *form) api() *programs.API { return f.servers[0].API }

// TestNothingOfAnErasedUserIsLeft: a user who has done everything is erased. Then no
// store, no feed, no export, no log and no metric has any of what is about the user.
func TestNothingOfAnErasedUserIsLeft(t *testing.T) {
	dns := services.StartDNS(t)
	control := []string{"--log-level", "debug", "--resolver", dns.Addr}
	public := []string{"--http", "127.0.0.1:0", "--base-domain", "t.example.org", "--log-level", "debug"}
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		(&form{t: t, servers: []*programs.Server{programs.Serve(t, append(slices.Clone(control), public...)...)}}).story(dns)
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		postgres, redis := services.Postgres(t), services.Redis(t)
		c := programs.StartClusterWith(t, 1, postgres, redis, control, public...)
		(&form{t: t, servers: append([]*programs.Server{c.Control}, c.Forwarders...), postgres: postgres, redis: redis}).story(dns)
	})
}

func (f *form) story(dns *services.DNS) {
	t := f.t
	var user programs.User
	f.api().Do(t, "POST", "/api/v1/users", map[string]any{"username": username, "email": mail}, &user)
	agents := f.live(user.ID, dns)
	before := strings.Join(f.left(), "\n") + f.mappings(user.ID)
	for _, v := range values {
		if !strings.Contains(before, v) {
			t.Errorf("%s is found nowhere before the erasure: this test is blind for it", v)
		}
	}
	kept := f.export("--no-data-keys")
	for _, v := range values {
		if contains(kept, v) {
			t.Errorf("an export without data keys has %s", v)
		}
	}
	f.api().Do(t, "POST", fmt.Sprintf("/api/v1/users/%d/erase", user.ID), nil, nil)
	for _, agent := range agents {
		if status := agent.Fails(15 * time.Second); status != 3 {
			t.Errorf("an agent of the erased user ended with %d, want 3", status)
		}
	}
	programs.Eventually(t, 30*time.Second, func() error {
		if left := f.left(); len(left) > 0 {
			return fmt.Errorf("after the erasure there are still:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
	for _, s := range f.servers {
		for _, line := range strings.Split(s.Said(64<<20), "\n") {
			if v := has([]byte(line)); v != "" {
				t.Errorf("the log of %s has %s: %.300s", s.Name, v, line)
			}
		}
	}
}

// live does everything that a user can do.
func (f *form) live(user int64, dns *services.DNS) (agents []*programs.Process) {
	t, api := f.t, f.api()
	own := func(id int64) string { return fmt.Sprintf("/api/v1/users/%d", id) }
	api.Do(t, "PUT", own(user), map[string]any{"username": renamed, "email": otherMail, "password": "correct horse battery"}, nil)
	var tokens struct {
		Access string `json:"access_token"`
	}
	f.ask(loginAddress, "", "POST", "/api/v1/auth/login", map[string]any{"username": renamed, "password": "correct horse battery"}, &tokens)
	var key struct{ Key string }
	f.ask(loginAddress, tokens.Access, "POST", "/api/v1/keys", map[string]any{"name": keyName}, &key)

	// Clients: one that was created, one that was invited, one that was anonymous.
	var created programs.Client
	f.ask(keyAddress, key.Key, "POST", "/api/v1/clients", map[string]any{"user_id": user, "client_name": clientName, "description": description}, &created)
	f.ask(keyAddress, key.Key, "PUT", fmt.Sprintf("/api/v1/clients/%d", created.ID), map[string]any{"client_name": machine}, nil)
	createdState := t.TempDir()
	agent := f.agentFrom(agentAddress, createdState, "--client-id", fmt.Sprint(created.ID), "--auth-code-file", f.file(created.AuthCode))
	api.WaitOnline(t, created.ID)
	anonymousState := t.TempDir()
	anonymous := f.agentFrom(anonymousAddress, anonymousState, "--name", hostName)
	var code []byte
	programs.Eventually(t, 15*time.Second, func() (err error) {
		code, err = exec.CommandContext(t.Context(), f.program("tunnox"), "agent", "claim-code", "--state", anonymousState).Output()
		return err
	})
	var claimed programs.Client
	f.ask(keyAddress, key.Key, "POST", "/api/v1/clients/claim", map[string]any{"claim_code": strings.TrimSpace(string(code)), "user_id": user}, &claimed)
	api.WaitOnline(t, claimed.ID)
	var invite struct{ Code string }
	f.ask(keyAddress, key.Key, "POST", "/api/v1/invites", map[string]any{"user_id": user, "name": inviteName, "uses": 2}, &invite)

	// Mappings: with traffic, with options, at public hosts, of the agent itself.
	service, port := programs.Listen(t, programs.Echo).Port, programs.FreePort(t)
	mapping := map[string]any{"user_id": user, "name": mappingName, "protocol": "tcp", "source_client_id": claimed.ID, "target_client_id": created.ID,
		"local_port": port, "target_host": "127.0.0.1", "target_port": service}
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", mapping, nil)
	programs.Eventually(t, 15*time.Second, func() error {
		answer, err := programs.Ask(port, []byte("hello"))
		if err == nil && string(answer) != "hello" {
			err = fmt.Errorf("answered %q", answer)
		}
		return err
	})
	var second programs.Mapping
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", map[string]any{"user_id": user, "protocol": "tcp", "source_client_id": claimed.ID,
		"target_client_id": created.ID, "local_host": listenAddress, "local_port": programs.FreePort(t), "target_host": targetHost, "target_port": 80}, &second)
	f.ask(keyAddress, key.Key, "PUT", fmt.Sprintf("/api/v1/mappings/%d", second.ID), map[string]any{"target": "unix:/run/" + socketPath}, nil)
	public := map[string]any{"user_id": user, "protocol": "http", "target_client_id": created.ID, "public_host": publicHost, "public_path": "/" + publicPath,
		"target_host": "127.0.0.1", "target_port": service,
		"access":  map[string]any{"allow": []string{visitors + "/32"}, "basic": []any{map[string]any{"username": visitorName, "password": "a password of a visitor"}}},
		"http":    map[string]any{"request_headers": map[string]any{"set": map[string]any{"X-From": headerValue}}},
		"targets": []any{map[string]any{"client_id": created.ID, "target": fmt.Sprintf("127.0.0.1:%d", service)}, map[string]any{"client_id": claimed.ID, "target": targetHost + ":81"}}}
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", public, nil)
	out, err := exec.CommandContext(t.Context(), f.program("tunnox"), "agent", "mapping", "create", "--state", createdState, "--name", fromAgentName,
		"--listen", fmt.Sprint(programs.FreePort(t)), "--target", fmt.Sprint(created.ID), "--service", fmt.Sprintf("127.0.0.1:%d", service)).CombinedOutput()
	if err != nil {
		t.Fatalf("a mapping of the agent: %v, %s", err, out)
	}

	// What does not work: a dead first target, a listener that cannot be opened, a service
	// whose name leads nowhere.
	dead := map[string]any{"user_id": user, "protocol": "tcp", "source_client_id": claimed.ID, "target_client_id": created.ID, "local_port": programs.FreePort(t),
		"targets": []any{map[string]any{"client_id": created.ID, "target": targetHost + ":82"}, map[string]any{"client_id": created.ID, "target": fmt.Sprintf("127.0.0.1:%d", service)}}}
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", dead, nil)
	programs.Eventually(t, 15*time.Second, func() error {
		_, err := programs.Ask(dead["local_port"].(int), []byte("hello"))
		return err
	})
	nowhere := map[string]any{"user_id": user, "protocol": "tcp", "source_client_id": claimed.ID, "target_client_id": created.ID, "local_port": programs.FreePort(t),
		"target_host": targetHost, "target_port": 83}
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", nowhere, nil)
	programs.Eventually(t, 15*time.Second, func() error {
		c, err := programs.DialPort(nowhere["local_port"].(int))
		if err == nil {
			_, _ = c.Read(make([]byte, 1))
			err = c.Close()
		}
		return err
	})
	taken := listen(t, listenAddress)
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", map[string]any{"user_id": user, "protocol": "tcp", "source_client_id": claimed.ID,
		"target_client_id": created.ID, "local_host": listenAddress, "local_port": taken, "target_host": targetHost, "target_port": 84}, nil)
	f.servers[len(f.servers)-1].Says("could not open a listener", 15*time.Second)

	// A domain that is proved and in use, a share that is redeemed, a webhook that fails.
	var own1 struct {
		ID    int64  `json:"domain_id"`
		Name  string `json:"proof_name"`
		Value string `json:"proof_value"`
	}
	host := ownDomain
	if f.postgres != "" {
		host = "cluster." + ownDomain // both forms ask the same name server
	}
	f.ask(keyAddress, key.Key, "POST", "/api/v1/domains", map[string]any{"user_id": user, "host": host}, &own1)
	dns.SetText(own1.Name, own1.Value)
	f.ask(keyAddress, key.Key, "POST", fmt.Sprintf("/api/v1/domains/%d/verify", own1.ID), nil, nil)
	delete(public, "public_path")
	public["public_host"] = host
	f.ask(keyAddress, key.Key, "POST", "/api/v1/mappings", public, nil)
	var share struct{ Code string }
	f.ask(keyAddress, key.Key, "POST", "/api/v1/shares", map[string]any{"user_id": user, "name": shareName, "target_client_id": created.ID, "protocol": "tcp",
		"target_host": shareHost, "target_port": 5432, "max_uses": 2}, &share)
	bob := api.CreateUser(t, "bob")
	bobs := api.CreateClient(t, bob.ID, "bobs")
	api.Do(t, "POST", "/api/v1/shares/redeem", map[string]any{"code": share.Code, "source_client_id": bobs.ID, "local_port": programs.FreePort(t)}, nil)
	api.Do(t, "POST", "/api/v1/webhooks", map[string]any{"user_id": user, "url": "http://127.0.0.1:1/" + hookURL, "description": hookText, "events": []string{"*"}}, nil)
	f.ask(keyAddress, key.Key, "PUT", fmt.Sprintf("/api/v1/clients/%d", created.ID), map[string]any{"description": description + " again"}, nil)

	// The past that was looked at is kept in memory.
	api.Do(t, "GET", "/api/v1/users?as_of="+time.Now().UTC().Format(time.RFC3339Nano), nil, nil)
	f.noteKeys(user)
	return []*programs.Process{agent, anonymous}
}

// noteKeys has the keys of the personal data looked for too: the user's, and that of the
// anonymous client that the user has claimed.
func (f *form) noteKeys(user int64) {
	for line := range bytes.Lines(f.export()) {
		var l struct {
			DataKey *struct {
				Account int64  `json:"account"`
				Key     []byte `json:"key"`
			} `json:"data_key"`
		}
		if json.Unmarshal(line, &l) == nil && l.DataKey != nil && (l.DataKey.Account == user || domain.IsAnonymous(l.DataKey.Account)) {
			f.dataKeys = append(f.dataKeys, string(l.DataKey.Key))
		}
	}
	if len(f.dataKeys) != 2 {
		f.t.Fatalf("the export has %d keys of the user", len(f.dataKeys))
	}
}

// mappings gives the mappings of the user as the API shows them: in the log of events
// the options with secrets are hidden.
func (f *form) mappings(user int64) string {
	return string(f.api().Do(f.t, "GET", fmt.Sprintf("/api/v1/users/%d/mappings", user), nil, nil).Body)
}

// contains reports whether a text has a value, as it is, as hexadecimal digits or in
// base64.
func contains(text []byte, v string) bool {
	return bytes.Contains(text, []byte(v)) || bytes.Contains(text, []byte(hex.EncodeToString([]byte(v)))) ||
		bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte(v))))
}

// has gives the value that a text holds.
func has(text []byte) string {
	for _, v := range values {
		if contains(text, v) {
			return v
		}
	}
	return ""
}

// left says where values are.
func (f *form) left() (left []string) {
	look := func(where string, text []byte) {
		for _, v := range values {
			if contains(text, v) {
				left = append(left, where+": "+v)
			}
		}
		for i, key := range f.dataKeys {
			if contains(text, key) {
				left = append(left, fmt.Sprintf("%s: data key %d", where, i))
			}
		}
	}
	for _, s := range f.servers {
		_ = filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if text, err := os.ReadFile(path); err == nil { // one that went meanwhile holds nothing
					look("the file "+d.Name()+" of "+s.Name, text)
				}
			}
			return nil
		})
		answer, err := http.Get("http://" + s.Metrics + "/metrics")
		if err != nil {
			f.t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		if err := answer.Body.Close(); err != nil {
			f.t.Fatal(err)
		}
		if err != nil || !bytes.Contains(text, []byte("tunnox_")) {
			f.t.Fatalf("the metrics of %s: %v", s.Name, err)
		}
		look("the metrics of "+s.Name, text)
	}
	if f.postgres != "" {
		look("Postgres", f.tables())
		for key, value := range f.keys() {
			look("Redis "+key, value)
		}
	}
	look("the export", f.export())
	look("the log of events", f.everything("/api/v1/audit"))
	look("the past", f.everything("/api/v1/users?as_of="+pastMoment(f)))
	return left
}

// pastMoment is a time when the user was there.
func pastMoment(f *form) string {
	events := programs.All[struct {
		Recorded time.Time `json:"recorded"`
	}](f.t, f.api(), "/api/v1/audit?type=webhook_created")
	if len(events) == 0 {
		f.t.Fatal("there is no webhook in the log")
	}
	return events[0].Recorded.UTC().Format(time.RFC3339Nano)
}

// everything gives a list of the API to its end.
func (f *form) everything(path string) []byte {
	var all []byte
	for _, item := range programs.All[json.RawMessage](f.t, f.api(), path) {
		all = append(append(all, item...), '\n')
	}
	return all
}

func (f *form) export(flags ...string) []byte {
	args := append([]string{"export", "--data", f.servers[0].Dir, "--out", "-"}, flags...)
	if f.postgres != "" {
		args = append(args, "--postgres", f.postgres)
	}
	cmd := exec.CommandContext(f.t.Context(), f.program("tunnoxd"), args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil || len(text) < 1000 {
		f.t.Fatalf("export: %d bytes, %v, %s", len(text), err, said.Bytes())
	}
	return text
}

func (f *form) program(name string) string { return filepath.Join(programs.Build(f.t), name) }

func (f *form) file(text string) string {
	path := filepath.Join(f.t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// listen takes a port of an address for the time of the test.
func listen(t *testing.T, address string) (port int) {
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// from gives a dialler that comes from an address.
func from(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
}

// ask asks the API from an address.
func (f *form) ask(address, key, method, path string, body, into any) {
	f.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.api().URL+path, bytes.NewReader(text))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+key)
	client := http.Client{Transport: &http.Transport{DialContext: from(address).DialContext, DisableKeepAlives: true}, Timeout: 30 * time.Second}
	answer, err := client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err = io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode/100 != 2 {
		f.t.Fatalf("%s %s: %d %s, %v", method, path, answer.StatusCode, text, err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			f.t.Fatalf("%s %s: %s, %v", method, path, text, err)
		}
	}
}

// agentFrom starts an agent whose connections come from an address.
func (f *form) agentFrom(address, state string, args ...string) *programs.Process {
	node := f.servers[len(f.servers)-1]
	relay := programs.Listen(f.t, func(in *net.TCPConn) {
		out, err := from(address).Dial("tcp", node.Agents)
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
		_, _ = out.Close(), in.Close()
	})
	return programs.Start(f.t, "tunnox", nil, append([]string{"agent", "--server", relay.String(), "--pin", node.Pin, "--state", state, "--sessions", "1",
		"--transport", "tls", "--allow", "*", "--allow-listen", "*"}, args...)...)
}
