package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/domain"
)

// completionTime bounds how long a shell waits for the names that a server has.
const completionTime = 2 * time.Second

// noFiles is for words that are no files.
const noFiles = cobra.ShellCompDirectiveNoFileComp

// flagWords gives the words that flags take, by the path of the command and the flag.
func flagWords() map[string][]string {
	var scopes, protocols []string
	for _, scope := range domain.RoleAdmin.Scopes() {
		scopes = append(scopes, string(scope))
	}
	for _, p := range domain.Protocols() {
		protocols = append(protocols, string(p))
	}
	events := domain.EventNames()
	return map[string][]string{
		"client list --status":    {"online", "offline", "disabled"},
		"client list --type":      {"managed", "anonymous"},
		"mapping list --status":   {"active", "disabled"},
		"mapping list --protocol": protocols,
		"user list --status":      {"active", "disabled"},
		"user list --role":        {"admin", "user"},
		"user create --role":      {"admin", "user"},
		"stats traffic --range":   {"1h", "24h", "7d", "30d"},
		"key create --scope":      scopes,
		"events --type":           events,
		"webhook create --event":  events,
		"webhook update --event":  events,
		"webhook update --scope":  {"own", "all"},
		"agent --transport":       append([]string{"auto"}, transports...),
		"agent --log-level":       {"debug", "info", "warn", "error"},
		"agent --log-format":      {"text", "json"},
	}
}

// completing makes shells offer what commands take: names of resources, words and
// files, each where it may stand and nothing else.
func completing(root *cobra.Command, api *apiFlags) {
	root.CompletionOptions.SetDefaultShellCompDirective(noFiles)
	completeUnder(root, "", flagWords(), api)
}

func completeUnder(cmd *cobra.Command, path string, words map[string][]string, api *apiFlags) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		placeholder, _ := pflag.UnquoteUsage(f)
		name := f.Name
		switch {
		case words[path+" --"+name] != nil:
			// The error is of a flag that has a function already, which is as good.
			_ = cmd.RegisterFlagCompletionFunc(name, listWords(words[path+" --"+name]))
		case placeholder == "file":
			_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault))
		case placeholder == "directory":
			_ = cmd.MarkFlagDirname(name)
		default:
			if v, ok := f.Value.(*nameValue); ok && v.kind != "" {
				_ = cmd.RegisterFlagCompletionFunc(name, api.completeNames(v.kind, false))
			}
		}
	})
	if kind := cmd.Annotations[namesKind]; kind != "" && cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = api.completeNames(kind, cmd.Annotations[namesFirst] != "")
	}
	switch path {
	case "user role":
		cmd.ValidArgsFunction = second(cmd.ValidArgsFunction, cobra.FixedCompletions([]string{"admin", "user"}, noFiles))
	case "user plan":
		cmd.ValidArgsFunction = second(cmd.ValidArgsFunction, api.completeList("/api/v1/plans", "name"))
	case "user create":
		_ = cmd.RegisterFlagCompletionFunc("plan", api.completeList("/api/v1/plans", "name")) // the command has the flag
	case "node show", "node drain", "node revoke":
		cmd.ValidArgsFunction = api.completeList("/api/v1/nodes", "node_id")
	case "webhook show", "webhook update", "webhook delete", "webhook rotate-secret", "webhook test", "webhook deliveries", "webhook redeliver", "webhook enable", "webhook disable":
		cmd.ValidArgsFunction = api.completeNumbers("/api/v1/webhooks", "webhook_id", "url")
	}
	for _, sub := range cmd.Commands() {
		completeUnder(sub, strings.TrimSpace(path+" "+sub.Name()), words, api)
	}
}

// second is for a command whose second argument is of another kind.
func second(first, other cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return first(cmd, args, begun)
		case 1:
			return other(cmd, nil, begun)
		}
		return nil, noFiles
	}
}

// listWords offers words that may stand one after the other, separated by commas.
func listWords(words []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		before := begun[:strings.LastIndex(begun, ",")+1]
		offered := make([]string, len(words))
		for i, word := range words {
			offered[i] = before + word
		}
		return offered, noFiles
	}
}

// completer gives a client for a completion, nil where none can be made. It says nothing.
func (f *apiFlags) completer(ctx context.Context) *restClient {
	quiet := *f
	quiet.timeout, quiet.stderr = completionTime, discard{}
	c, err := quiet.client()
	if err != nil || c.key == "" && quiet.loginsAt(c.place).use(ctx, c) != nil {
		return nil
	}
	return c
}

// discard swallows what is said while a shell completes a word.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// completeNames offers the names of resources. One whose name a shell would take apart,
// or that others have too, is offered by its id.
func (f *apiFlags) completeNames(kind string, one bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if one && len(args) > 0 {
			return nil, noFiles
		}
		return offerNames(cmd.Context(), f.completer(cmd.Context()), kind), noFiles
	}
}

func offerNames(ctx context.Context, c *restClient, kind string) (offered []string) {
	if c == nil {
		return nil
	}
	all, err := c.namesOf(ctx, kind)
	if err != nil {
		return nil
	}
	times := map[string]int{}
	for _, n := range all {
		times[n.name]++
	}
	for _, n := range all {
		id := strconv.FormatInt(n.id, 10)
		if _, digits := strconv.ParseInt(n.name, 10, 64); digits == nil || times[n.name] > 1 || !isWord(n.name) {
			offered = append(offered, id+"\t"+oneLine(n.name))
		} else {
			offered = append(offered, n.name+"\t"+id)
		}
	}
	return offered
}

// isWord reports whether a shell takes a name as one word, as it is.
func isWord(name string) bool {
	for _, r := range name {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-@+", r)) {
			return false
		}
	}
	return !strings.HasPrefix(name, "-")
}

// completeList offers one field of a list that has no pages.
func (f *apiFlags) completeList(path, field string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (offered []string, _ cobra.ShellCompDirective) {
		c := f.completer(cmd.Context())
		if c == nil || len(args) > 0 {
			return nil, noFiles
		}
		b, err := c.call(cmd.Context(), http.MethodGet, path, nil)
		var p page
		if err != nil || json.Unmarshal(b, &p) != nil {
			return nil, noFiles
		}
		for _, item := range p.Items {
			if o, err := parseObject(item); err == nil && isWord(o.text(field)) {
				offered = append(offered, o.text(field))
			}
		}
		return offered, noFiles
	}
}

// completeNumbers offers the ids of what has no name, with a field that tells them apart.
func (f *apiFlags) completeNumbers(path, id, about string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (offered []string, _ cobra.ShellCompDirective) {
		c := f.completer(cmd.Context())
		if c == nil || len(args) > 0 {
			return nil, noFiles
		}
		p, err := c.list(cmd.Context(), path, 0, 0)
		if err != nil {
			return nil, noFiles
		}
		for _, item := range p.Items {
			if o, err := parseObject(item); err == nil {
				offered = append(offered, o.text(id)+"\t"+oneLine(o.text(about)))
			}
		}
		return offered, noFiles
	}
}

// complete offers names that the agent of this machine knows.
func (f *localFlags) complete(kind string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		quiet := *f
		quiet.timeout = completionTime
		c, err := quiet.client()
		if err != nil {
			return nil, noFiles
		}
		return offerNames(cmd.Context(), c, kind), noFiles
	}
}
