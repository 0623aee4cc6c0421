package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// asking has the options of a request that are the same for many commands. Every
// command that reads has the same flags, and so has every command that changes
// something.
type asking struct {
	asOf    string
	dryRun  bool
	once    string // Idempotency-Key
	ifMatch string
}

// reads adds the flags for reading to commands.
func reads(cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.Flags().String("as-of", "", "show the state at this `position` of the log, or at a time, for example 2026-01-02T15:04:05Z")
	}
}

// changes adds the flags for changes to commands.
func changes(cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.Flags().Bool("dry-run", false, "change nothing; show the events this would write and the live connections it would end")
		cmd.Flags().String("idempotency-key", "", "`key` that makes a repeat harmless: the same key with the same command gives the first answer again")
	}
}

// changesOne is changes for commands that change one existing resource.
func changesOne(cmds ...*cobra.Command) {
	changes(cmds...)
	for _, cmd := range cmds {
		cmd.Flags().String("if-match", "", "refuse the change unless this is still the `version` of the resource (the last event of its history shows it)")
	}
}

// askingOf reads those of the flags that a command has.
func askingOf(flags *pflag.FlagSet) asking {
	text := func(name string) string {
		if f := flags.Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	a := asking{asOf: text("as-of"), dryRun: text("dry-run") == "true", once: text("idempotency-key"), ifMatch: text("if-match")}
	if a.ifMatch != "" {
		a.ifMatch = `"` + strings.Trim(a.ifMatch, `"`) + `"`
	}
	return a
}

// path adds the options to a request's query.
func (a asking) path(method, path string) string {
	switch {
	case method == http.MethodGet && a.asOf != "":
		return withQuery(path, "as_of="+url.QueryEscape(a.asOf))
	case method != http.MethodGet && a.dryRun:
		return withQuery(path, "dry_run=true")
	}
	return path
}

// header adds the options to a request's header.
func (a asking) header(req *http.Request) {
	if req.Method == http.MethodGet {
		return
	}
	if a.once != "" {
		req.Header.Set("Idempotency-Key", a.once)
	}
	if a.ifMatch != "" {
		req.Header.Set("If-Match", a.ifMatch)
	}
}

func withQuery(path, query string) string {
	joint := "?"
	if strings.Contains(path, "?") {
		joint = "&"
	}
	return path + joint + query
}

// plan is the answer to a dry run. It is returned as an error, because it is not the
// answer that a command expects.
type plan struct{ body []byte }

// Error implements error.
func (p *plan) Error() string { return "nothing was changed: this was a dry run" }

// planType is the content type with which the API marks such an answer.
const planType = "application/vnd.tunnox.dry-run+json"

var planColumns = []column{field("STREAM", "stream"), field("VERSION", "version"), field("EVENT", "name"), field("OWNER", "owner"),
	{"DATA", func(o object) string {
		b, err := json.Marshal(o["data"])
		if err != nil {
			return "-"
		}
		return string(b)
	}}}

// print shows the events that would be written and the connections that would end.
func (p *plan) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(out, p.body)
	}
	if err := p.show(out); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "nothing was changed: this was a dry run")
	return err
}

// show is print for people.
func (p *plan) show(out io.Writer) error {
	var planned struct {
		Command string            `json:"command"`
		Events  []json.RawMessage `json:"events"`
		Ends    struct {
			Clients  []int64 `json:"clients"`
			Mappings []int64 `json:"mappings"`
			Sessions *int64  `json:"sessions"`
			Streams  *int64  `json:"streams"`
		} `json:"ends"`
	}
	if err := json.Unmarshal(p.body, &planned); err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	if len(planned.Events) == 0 {
		fmt.Fprintf(out, "%s would write nothing: there is nothing to change\n", oneLine(planned.Command))
	} else {
		fmt.Fprintf(out, "%s would write:\n", oneLine(planned.Command))
		if err := printTable(out, planColumns, planned.Events); err != nil {
			return err
		}
	}
	ends := ""
	if n := planned.Ends.Sessions; n == nil || *n > 0 {
		of := ""
		if len(planned.Ends.Clients) > 0 { // of a node's sessions only the number is known
			of = fmt.Sprintf(" of the clients %v", planned.Ends.Clients)
		}
		ends += fmt.Sprintf("would end %s%s\n", counted(n, "session"), of)
	}
	if n := planned.Ends.Streams; len(planned.Ends.Mappings) > 0 {
		ends += fmt.Sprintf("would end %s of the mappings %v\n", counted(n, "open connection"), planned.Ends.Mappings)
	}
	_, err := io.WriteString(out, ends)
	return err
}

// counted gives a number of things for people; nil is not known.
func counted(n *int64, thing string) string {
	switch {
	case n == nil:
		return "an unknown number of " + thing + "s"
	case *n == 1:
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", *n, thing)
}
