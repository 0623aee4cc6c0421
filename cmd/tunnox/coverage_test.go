package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// commandsOf gives, for each operation of the API, command lines that perform it
// and between them send every parameter and every field of its body. FILE is a
// file with a secret in it.
var commandsOf = map[string][]string{
	"audit": {
		"events --actor key:admin --subject user-1 --type user_created --owner 1 --from 2026-01-02T15:04:05Z --to 2026-01-03T15:04:05Z --after 5 --limit 7 --newest",
		"events export",
	},
	"stream-events": {"events follow --actor key:admin --subject user-1 --type user_created --owner 1 --from 2026-01-02T15:04:05Z --to 2026-01-03T15:04:05Z --after 5"},
	"revert-event":  {"events revert 7 --dry-run --idempotency-key k"},

	"get-checkpoint":    {"audit checkpoint"},
	"prove-inclusion":   {"audit inclusion 7 --size 9"},
	"prove-consistency": {"audit consistency 7 --to 9"},

	"login":   {"login --json --username ann --password-file FILE"},
	"refresh": {"login refresh --refresh-token-file FILE"},
	"logout":  {"logout"},
	"whoami":  {"whoami"},

	"list-users":    {"user list --status active --role admin --after 1 --limit 5 --as-of 9"},
	"create-user":   {"user create --username ann --email a@example.org --password-file FILE --role user --plan small --dry-run --idempotency-key k"},
	"get-user":      {"user show 1 --as-of 2026-01-02T15:04:05Z"},
	"change-user":   {"user update 1 --username ann --email a@example.org --password-file FILE --current-password-file FILE --dry-run --idempotency-key k --if-match 3"},
	"delete-user":   {"user delete 1 --dry-run --idempotency-key k --if-match 3"},
	"erase-user":    {"user erase 1 --dry-run --idempotency-key k --if-match 3"},
	"enable-user":   {"user enable 1 --dry-run --idempotency-key k --if-match 3"},
	"disable-user":  {"user disable 1 --dry-run --idempotency-key k --if-match 3"},
	"set-user-role": {"user role 1 admin --dry-run --idempotency-key k --if-match 3"},
	"set-user-plan": {"user plan 1 small --dry-run --idempotency-key k --if-match 3"},
	"user-history":  {"user history 1"},
	"get-quota":     {"user quota 1 --as-of 9"},
	"set-quota":     {"user quota 1 --dry-run --idempotency-key k --if-match 3" + limitArguments()},
	"list-plans":    {"plan list"},

	"list-clients":         {"client list --status online --type managed --after 1 --limit 5 --as-of 9"},
	"list-clients-of-user": {"client list --user 1 --status online --type managed --after 1 --limit 5 --as-of 9"},
	"create-client":        {"client create --user 1 --name laptop --description text --commands all --dry-run --idempotency-key k"},
	"claim-client":         {"client claim --code-file FILE --user 1 --name laptop --dry-run --idempotency-key k"},
	"get-client":           {"client show 1 --as-of 9"},
	"change-client":        {"client update 1 --name laptop --description text --commands none --dry-run --idempotency-key k --if-match 3"},
	"delete-client":        {"client delete 1 --dry-run --idempotency-key k --if-match 3"},
	"enable-client":        {"client enable 1 --dry-run --idempotency-key k --if-match 3"},
	"disable-client":       {"client disable 1 --dry-run --idempotency-key k --if-match 3"},
	"rotate-credential":    {"client rotate 1 --dry-run --idempotency-key k --if-match 3"},
	"disconnect-client":    {"client disconnect 1 --dry-run --idempotency-key k --if-match 3"},
	"client-history":       {"client history 1"},

	"list-mappings":           {"mapping list --status active --protocol tcp --after 1 --limit 5 --as-of 9"},
	"list-mappings-of-user":   {"mapping list --user 1 --status active --protocol tcp --after 1 --limit 5 --as-of 9"},
	"list-mappings-of-client": {"mapping list --client 1 --status active --protocol tcp --after 1 --limit 5 --as-of 9"},
	"create-mapping": {"mapping create --user 1 --source 2 --listen 127.0.0.1:3 --target 4 --service h:5 --protocol tcp --name n --dry-run --idempotency-key k" + optionArguments(mappingOptions),
		"mapping create --public-port 3 --target 4 --service unix:/run/app.sock", "mapping create --public-port 3-5 --target 4 --service h:3-5",
		"mapping create --protocol http --host otter --path /app --target 4 --service https://h:5"},
	"get-mapping":     {"mapping show 1 --as-of 9"},
	"change-mapping":  {"mapping update 1 --listen 127.0.0.1:3 --public-port 3 --host otter --path /app --service https://h:5 --name n --dry-run --idempotency-key k --if-match 3" + optionArguments(mappingOptions), "mapping update 1 --service file:/srv/www", "mapping update 1 --public-port 3-5 --service h:3-5"},
	"delete-mapping":  {"mapping delete 1 --dry-run --idempotency-key k --if-match 3"},
	"enable-mapping":  {"mapping enable 1 --dry-run --idempotency-key k --if-match 3"},
	"disable-mapping": {"mapping disable 1 --dry-run --idempotency-key k --if-match 3"},
	"mapping-history": {"mapping history 1"},

	"list-keys":  {"key list --user 1 --after 1 --limit 5 --as-of 9"},
	"create-key": {"key create --user 1 --name ci --scope read --expires 1h --dry-run --idempotency-key k"},
	"get-key":    {"key show 1 --as-of 9"},
	"revoke-key": {"key delete 1 --dry-run --idempotency-key k --if-match 3"},

	"list-domains":  {"domain list --user 1 --after 1 --limit 5 --as-of 9"},
	"create-domain": {"domain add shop.example.com --user 1 --dry-run --idempotency-key k"},
	"get-domain":    {"domain show 1 --as-of 9"},
	"verify-domain": {"domain verify 1 --dry-run --idempotency-key k --if-match 3"},
	"delete-domain": {"domain remove 1 --dry-run --idempotency-key k --if-match 3"},
	"list-invites":  {"invite list --user 1 --after 1 --limit 5 --as-of 9"},
	"create-invite": {"invite create --user 1 --name n --uses 2 --expires 1h --dry-run --idempotency-key k"},
	"get-invite":    {"invite show 1 --as-of 9"},
	"revoke-invite": {"invite revoke 1 --dry-run --idempotency-key k --if-match 3"},

	"list-shares":  {"share list --user 1 --after 1 --limit 5 --as-of 9"},
	"create-share": {"share create --user 1 --target 2 --service https://h:5 --protocol tcp --name n --uses 2 --expires 1h --dry-run --idempotency-key k" + optionArguments(mappingOptions), "share create --target 2 --service unix:/run/app.sock"},
	"get-share":    {"share show 1 --as-of 9"},
	"revoke-share": {"share delete 1 --dry-run --idempotency-key k --if-match 3"},
	"redeem-share": {"share redeem --source 2 --listen 127.0.0.1:3 --name n --code-file FILE --dry-run --idempotency-key k"},

	"list-webhooks":         {"webhook list --user 1 --after 1 --limit 5 --as-of 9"},
	"create-webhook":        {"webhook create --user 1 --url https://example.org/ --event mapping_* --all --description d --dry-run --idempotency-key k"},
	"get-webhook":           {"webhook show 1 --as-of 9"},
	"change-webhook":        {"webhook update 1 --url https://example.org/ --event mapping_* --scope own --description d --dry-run --idempotency-key k --if-match 3"},
	"delete-webhook":        {"webhook delete 1 --dry-run --idempotency-key k --if-match 3"},
	"enable-webhook":        {"webhook enable 1 --dry-run --idempotency-key k --if-match 3"},
	"disable-webhook":       {"webhook disable 1 --dry-run --idempotency-key k --if-match 3"},
	"rotate-webhook-secret": {"webhook rotate-secret 1 --dry-run --idempotency-key k --if-match 3"},
	"test-webhook":          {"webhook test 1"},
	"list-deliveries":       {"webhook deliveries 1 --after 9 --limit 5"},
	"redeliver":             {"webhook redeliver 1 2"},

	"list-nodes":  {"node list"},
	"get-node":    {"node show node-001"},
	"drain-node":  {"node drain node-001 --dry-run --idempotency-key k"},
	"revoke-node": {"node revoke node-001 --dry-run --idempotency-key k"},

	"system-stats":    {"stats system"},
	"realtime-stats":  {"stats realtime"},
	"list-user-stats": {"stats users --limit 5"},
	"user-stats":      {"stats user 1"},
	"client-stats":    {"stats client 1"},
	"traffic-stats":   {"stats traffic --range 1h --user 1", "stats traffic --client 1", "stats traffic --mapping 1"},

	"ready":   {"status"},
	"version": {"status"},
}

// limitArguments sets every limit there is.
func limitArguments() (line string) {
	for i, limit := range domain.LimitFields() {
		line += fmt.Sprintf(" --%s %s", limit.Flag, []string{"1", "unlimited"}[i%2])
	}
	return line
}

// withoutCommand are the operations no command is for, and why.
var withoutCommand = map[string]string{
	"health":      "a probe for machines; status asks /ready, which says more",
	"jwks":        "for programs that check access tokens themselves",
	"list-events": "audit without a filter answers the same",
	"post-quota":  "the same as set-quota",
}

// notSent are parameters and fields that no command sends, and why; "*" stands for
// every operation.
var notSent = map[string]string{
	"change-mapping public_address":   "it follows from the port",
	"change-mapping public_url":       "it follows from the host",
	"change-mapping health":           "it is what has been found",
	"* Min-Position":                  "commands read what they have written from its answer",
	"* If-None-Match":                 "nothing is kept to compare with",
	"list-clients user_id":            "--user lists the clients of a user",
	"list-mappings user_id":           "--user lists the mappings of a user",
	"audit format":                    "export asks by its Accept header",
	"stream-events Last-Event-ID":     "sent when a stream is taken up again",
	"change-webhook webhook_id":       "may be sent and never changes",
	"change-webhook user_id":          "may be sent and never changes",
	"change-client client_id":         "may be sent and never changes",
	"change-client user_id":           "may be sent and never changes",
	"change-user user_id":             "may be sent and never changes",
	"change-mapping mapping_id":       "may be sent and never changes",
	"change-mapping user_id":          "may be sent and never changes",
	"change-mapping share_id":         "may be sent and never changes",
	"change-mapping protocol":         "may be sent and never changes",
	"change-mapping source_client_id": "may be sent and never changes",
	"change-mapping source_user_id":   "may be sent and never changes",
	"change-mapping target_client_id": "may be sent and never changes",
	"change-mapping target_user_id":   "may be sent and never changes",
}

// operation is what the OpenAPI document says of one.
type operation struct {
	ID         string `json:"operationId"`
	Parameters []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	RequestBody struct {
		Content map[string]struct {
			Schema struct {
				Ref string `json:"$ref"`
			} `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
}

// seen are the operations that were asked for, with what was sent of each.
type seen struct {
	mux *http.ServeMux
	mu  sync.Mutex
	of  map[string]map[string]bool // guarded by mu
}

// TestEveryOperationHasACommand performs every operation of the API from the
// command line, with every parameter and every field.
func TestEveryOperationHasACommand(t *testing.T) {
	operations, fields := readDocument(t)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("the secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &seen{mux: http.NewServeMux(), of: map[string]map[string]bool{}}
	for pattern, o := range operations {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, o) })
	}
	for id, lines := range commandsOf {
		for _, line := range lines {
			want := exitOK
			if id == "stream-events" {
				want = exitRefused // it would go on for ever
			}
			args := strings.Fields(strings.ReplaceAll(line, "FILE", file))
			if code, _, stderr := tunnox(t, s.mux.ServeHTTP, args...); code != want {
				t.Errorf("tunnox %s: exit code %d: %s", line, code, stderr)
			}
		}
		if s.of[id] == nil {
			t.Errorf("%v did not ask for %s", lines, id)
		}
	}
	for _, o := range operations {
		if reason := withoutCommand[o.ID]; reason != "" && commandsOf[o.ID] == nil {
			continue
		}
		if commandsOf[o.ID] == nil {
			t.Errorf("no command is for %s: add one, and its line to commandsOf", o.ID)
			continue
		}
		for _, name := range fields[o.ID] {
			if !s.of[o.ID][name] && notSent["* "+name] == "" && notSent[o.ID+" "+name] == "" {
				t.Errorf("no command sends %s of %s", name, o.ID)
			}
		}
	}
	for id := range maps.Keys(commandsOf) {
		if !slices.ContainsFunc(slices.Collect(maps.Values(operations)), func(o operation) bool { return o.ID == id }) {
			t.Errorf("commandsOf has %s, and the API has not", id)
		}
	}
}

// readDocument gives the operations by their pattern, and what each can be sent.
func readDocument(t *testing.T) (operations map[string]operation, fields map[string][]string) {
	t.Helper()
	b, err := os.ReadFile("../../httpapi/testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths      map[string]map[string]operation `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					ReadOnly   bool `json:"readOnly"`
					Deprecated bool `json:"deprecated"`
				} `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(b, &document); err != nil {
		t.Fatal(err)
	}
	operations, fields = map[string]operation{}, map[string][]string{}
	for path, methods := range document.Paths {
		for method, o := range methods {
			operations[strings.ToUpper(method)+" "+path] = o
			for _, p := range o.Parameters {
				if p.In != "path" {
					fields[o.ID] = append(fields[o.ID], p.Name)
				}
			}
			for _, content := range o.RequestBody.Content {
				_, name, _ := strings.Cut(content.Schema.Ref, "#/components/schemas/")
				for field, p := range document.Components.Schemas[name].Properties {
					if !p.ReadOnly && !p.Deprecated {
						fields[o.ID] = append(fields[o.ID], field)
					}
				}
			}
		}
	}
	return operations, fields
}

// answer notes what was sent, and answers what any command is content with.
func (s *seen) answer(w http.ResponseWriter, r *http.Request, o operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.of[o.ID]
	if sent == nil {
		sent = map[string]bool{}
		s.of[o.ID] = sent
	}
	for name := range r.URL.Query() {
		sent[name] = true
	}
	for _, p := range o.Parameters {
		if p.In == "header" && r.Header.Get(p.Name) != "" {
			sent[p.Name] = true
		}
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body) // there may be none
	for name := range body {
		sent[name] = true
	}
	w.Header().Set("X-Total-Count", "0")
	switch {
	case o.ID == "stream-events":
		w.WriteHeader(http.StatusForbidden)
		return
	case r.URL.Query().Get("dry_run") == "true":
		w.Header().Set("Content-Type", planType)
	case r.Header.Get("Accept") == "application/x-ndjson":
		return
	}
	fmt.Fprint(w, `{"items":[],"next":null,"events":[],"checks":{},"version":"1","checkpoint":"a note\n"}`)
}
