package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// people answers lists of users, clients and mappings, and notes what else is asked for.
func people(asked *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/users":
			fmt.Fprint(w, `{"items":[{"user_id":1,"username":"ann"},{"user_id":2,"username":"bob"}],"next":null}`)
		case "/api/v1/clients":
			fmt.Fprint(w, `{"items":[{"client_id":10,"client_name":"laptop"},{"client_id":11,"client_name":"desk"},{"client_id":12,"client_name":"desk"},{"client_id":13,"client_name":"a b"},{"client_id":14,"client_name":"77"}],"next":null}`)
		case "/api/v1/mappings":
			if r.Method == http.MethodGet {
				fmt.Fprint(w, `{"items":[{"mapping_id":20,"name":"db"}],"next":null}`)
				return
			}
			fallthrough
		default:
			var body map[string]any
			_ = json.NewDecoder(r.Body).Decode(&body) // there may be none
			*asked = append(*asked, strings.TrimSpace(fmt.Sprintf("%s %s %v %v", r.Method, r.URL.RequestURI(), body["source_client_id"], body["target_client_id"])))
			fmt.Fprint(w, `{"items":[],"next":null}`)
		}
	}
}

func TestNamesStandForIDs(t *testing.T) {
	for line, want := range map[string]string{
		"client show laptop":      "GET /api/v1/clients/10",
		"client show LAPTOP":      "GET /api/v1/clients/10",
		"client delete laptop 11": "DELETE /api/v1/clients/11",
		"client show 77":          "GET /api/v1/clients/77", // digits are an id
		"mapping disable db":      "POST /api/v1/mappings/20/disable",
		"mapping list --user bob": "GET /api/v1/users/2/mappings",
		"user plan ann small":     "PUT /api/v1/users/1/plan",
		"stats client laptop":     "GET /api/v1/stats/clients/10",
		"events --owner bob":      "owner=2",
		"key list --user bob":     "GET /api/v1/users/2/keys",
		"mapping create --source laptop --listen 1 --target 12 --service h:1": "POST /api/v1/mappings 10 12",
	} {
		var asked []string
		code, _, stderr := tunnox(t, people(&asked), strings.Fields(line)...)
		if line == "key list --user bob" {
			want = "2" // as a filter or as a path
		}
		if code != exitOK || len(asked) == 0 || !strings.Contains(asked[len(asked)-1], want) {
			t.Errorf("%s: code %d, asked %q, want %s: %s", line, code, asked, want, stderr)
		}
	}
	for line, want := range map[string]string{
		"client show desk":   "desk (11), desk (12) [ambiguous]",
		"client show lapto":  "there is laptop (10) [client_not_found]",
		"client delete nope": "no client is called \"nope\" [client_not_found]",
		"mapping create --source desk --listen 1 --target 12 --service h:1": "--source: several clients",
	} {
		var asked []string
		code, _, stderr := tunnox(t, people(&asked), strings.Fields(line)...)
		if code != exitRefused || !strings.Contains(stderr, want) || len(asked) > 0 {
			t.Errorf("%s: code %d, asked %q, said %q, want %q", line, code, asked, stderr, want)
		}
	}
}

func TestShellsAreOfferedNamesAndWords(t *testing.T) {
	for line, want := range map[string]string{
		"client show ":                  "laptop 11 12 13 14",
		"client delete laptop ":         "laptop 11 12 13 14",
		"client show laptop ":           "",
		"mapping create --source ":      "laptop 11 12 13 14",
		"mapping list --user ":          "ann bob",
		"user role ":                    "ann bob",
		"user role ann ":                "admin user",
		"client list --status ":         "online offline disabled",
		"mapping list --protocol ":      "tcp udp http",
		"events --type user_created,u":  "user_created,user_deleted",
		"webhook create --event ":       "mapping_created",
		"agent --log-level ":            "debug info warn error",
		"webhook show ":                 "",
		"mapping update db --service h": "",
	} {
		var asked []string
		begun := strings.Split(line, " ")
		_, stdout, _ := tunnox(t, people(&asked), append([]string{"__complete"}, begun...)...)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		var offered []string
		for _, l := range lines[:len(lines)-1] {
			word, _, _ := strings.Cut(l, "\t")
			offered = append(offered, word)
		}
		for _, word := range strings.Fields(want) {
			if !slices.Contains(offered, word) {
				t.Errorf("%q offers %q, not %s", line, offered, word)
			}
		}
		if want == "" && len(offered) > 0 || lines[len(lines)-1] != ":4" {
			t.Errorf("%q offers %q with directive %s, want no files", line, offered, lines[len(lines)-1])
		}
	}
	_, stdout, _ := tunnox(t, people(new([]string)), "__complete", "client", "create", "--auth-code-file", "")
	if strings.Contains(stdout, ":4\n") {
		t.Errorf("no files are offered for a file: %q", stdout)
	}
}

// TestOfferedWordsAreTheAPIs compares the words for lists with the API's document.
func TestOfferedWordsAreTheAPIs(t *testing.T) {
	b, err := os.ReadFile("../../httpapi/testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Parameters []struct {
				Name   string
				Schema struct{ Enum []string }
			}
		}
	}
	if err := json.Unmarshal(b, &document); err != nil {
		t.Fatal(err)
	}
	commands := map[string]string{"list-clients": "client list", "list-mappings": "mapping list", "list-users": "user list", "traffic-stats": "stats traffic"}
	compared := 0
	for _, methods := range document.Paths {
		for _, o := range methods {
			for _, p := range o.Parameters {
				command := commands[o.ID]
				if command == "" || p.Schema.Enum == nil {
					continue
				}
				compared++
				if offered := flagWords()[command+" --"+p.Name]; !slices.Equal(slices.Sorted(slices.Values(offered)), slices.Sorted(slices.Values(p.Schema.Enum))) {
					t.Errorf("%s --%s: a shell is offered %v, the API takes %v", command, p.Name, offered, p.Schema.Enum)
				}
			}
		}
	}
	if compared < 7 {
		t.Errorf("only %d flags were compared", compared)
	}
}
