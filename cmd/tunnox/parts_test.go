package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/domain"
)

// someOptions have a field of every kind that an option may be.
type someOptions struct {
	Mode    string            `json:"mode,omitempty" enum:"off,on" unset:"off" doc:"What it does"`
	Text    string            `json:"a_text,omitempty"`
	Seconds int               `json:"idle_seconds,omitempty" minimum:"1" maximum:"9"`
	Strict  bool              `json:"strict,omitempty"`
	Allow   []string          `json:"allow,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Access  *struct {
		Deny []string `json:"deny_from,omitempty"`
	} `json:"access,omitempty"`
}

func TestEveryKindOfOptionIsAFlag(t *testing.T) {
	for line, want := range map[string]string{
		"":                                     `{}`,
		"--mode=on":                            `{"mode":"on"}`,
		"--a-text=x --idle-seconds=5 --strict": `{"a_text":"x","idle_seconds":5,"strict":true}`,
		"--strict=false --allow=a,b --allow c": `{"allow":["a","b","c"],"strict":false}`,
		"--headers=a=b --access-deny-from=10.0.0.0/8 --mode off": `{"access":{"deny_from":["10.0.0.0/8"]},"headers":{"a":"b"},"mode":"off"}`,
	} {
		cmd := &cobra.Command{}
		optionFlags(cmd, someOptions{})
		if err := cmd.ParseFlags(strings.Fields(line)); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		body := map[string]any{}
		if err := addOptions(cmd.Flags(), someOptions{}, body); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got, err := json.Marshal(body); err != nil || string(got) != want {
			t.Errorf("%q makes %s, want %s, %v", line, got, want, err)
		}
	}
	cmd := &cobra.Command{}
	optionFlags(cmd, someOptions{})
	if usage := cmd.Flags().Lookup("mode").Usage; usage != "What it does: off, on (default: off)" {
		t.Errorf("the help is %q", usage)
	}
}

// TestEveryOptionIsAFlag: whatever options the domain has, the three commands that
// make or change mappings have their flags.
func TestEveryOptionIsAFlag(t *testing.T) {
	names := optionNames(mappingOptions)
	if fields := domain.Fields(mappingOptions); len(names) < len(fields) {
		t.Fatalf("%d flags for %d options", len(names), len(fields))
	}
	for _, group := range []*cobra.Command{mappingCommand(&apiFlags{}), shareCommand(&apiFlags{})} {
		for _, cmd := range group.Commands() {
			if cmd.Name() != "create" && cmd.Name() != "update" {
				continue
			}
			for _, name := range names {
				if cmd.Flags().Lookup(name) == nil {
					t.Errorf("%s has no flag --%s", cmd.CommandPath(), name)
				}
			}
		}
	}
}

// optionArguments sets every flag of a part, for the lines of commandsOf.
func optionArguments(part any) string {
	var b strings.Builder
	arguments(&b, "", domain.Fields(part))
	return b.String()
}

func arguments(b *strings.Builder, prefix string, fields []domain.Field) {
	for _, field := range fields {
		name, value := prefix+flagName(field.Name), "x"
		switch kind := field.Type.Kind(); {
		case listOf(field.Type) != nil && !isVisitors(field):
			var pairs []string
			for _, member := range domain.Fields(listOf(field.Type)) {
				value := "x"
				if member.Type.Kind() != reflect.String {
					value = "7"
				}
				pairs = append(pairs, member.Name+"="+value)
			}
			value = strings.Join(pairs, ",")
		case structOf(field.Type) != nil:
			arguments(b, name+"-", domain.Fields(structOf(field.Type)))
			continue
		case kind == reflect.Int, kind == reflect.Int64:
			value = "7"
		case kind == reflect.Bool:
			value = "true"
		case isVisitors(field):
			value = "ann:x"
		case kind == reflect.Map:
			value = "a=b"
		case field.Enum != nil:
			value = field.Enum[0]
		}
		fmt.Fprintf(b, " --%s=%s", name, value)
	}
}

// Visitors may be named on the command line, in a file, or on standard input; what is
// wrong with one is told without what may be a password. Values of headers have commas.
func TestVisitorsAndHeadersAsFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--access-basic=ann:x", "--access-basic-file=testdata/visitors"}, `{"access":{"basic":[{"username":"ann","password":"x"},{"username":"eve","password":"x"}]}}`},
		{[]string{"--access-basic-file=-"}, `{"access":{"basic":[{"username":"stdin","password":"a:b "}]}}`},
		{[]string{"--access-basic="}, `{"access":{"basic":[]}}`},
		{[]string{"--http-response-headers-set", "Cache-Control=public, max-age=5", "--http-response-headers-set=A=b"}, `{"http":{"response_headers":{"set":{"A":"b","Cache-Control":"public, max-age=5"}}}}`},
		{[]string{"--access-basic=secretword"}, "--access-basic: want USER:PASSWORD"},
		{[]string{"--access-basic-file=/none"}, "--access-basic-file: open /none: no such file or directory"},
	} {
		cmd := &cobra.Command{}
		cmd.SetIn(strings.NewReader("stdin:a:b \r\n"))
		optionFlags(cmd, mappingOptions)
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		body := map[string]any{}
		err := addOptions(cmd.Flags(), mappingOptions, body)
		got, _ := json.Marshal(body)
		if err != nil {
			got = []byte(err.Error())
		}
		if string(got) != c.want {
			t.Errorf("%q makes %s, want %s", c.args, got, c.want)
		}
	}
}

// A change of one field of an object leaves its other fields as they are.
func TestObjectsAreCompleted(t *testing.T) {
	body := map[string]any{"name": "n", "access": map[string]any{"allow": []string{"192.0.2.1"}},
		"http": map[string]any{"request_headers": map[string]any{"remove": []string{"X"}}}}
	err := completeObjects(body, func() ([]byte, error) {
		return []byte(`{"access":{"allow":["10.0.0.0/8"],"basic":[{"username":"ann"}]},"http":{"host_header":"h","request_headers":{"set":{"A":"b"}}}}`), nil
	})
	got, _ := json.Marshal(body)
	if want := `{"access":{"allow":["192.0.2.1"],"basic":[{"username":"ann"}]},"http":{"host_header":"h","request_headers":{"remove":["X"],"set":{"A":"b"}}},"name":"n"}`; err != nil || string(got) != want {
		t.Errorf("it is %s, %v", got, err)
	}
}
