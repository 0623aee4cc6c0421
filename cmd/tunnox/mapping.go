package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/domain"
)

var (
	mappingColumns = []column{
		field("NAME", "name"), field("MAPPING", "mapping_id"), field("PROTOCOL", "protocol"),
		field("SOURCE", "source_client_id"),
		{"LISTENER", listenerText},
		field("TARGET", "target_client_id"),
		{"SERVICE", serviceShown},
		field("STATUS", "status"),
	}
	mappingFields = []string{"mapping_id", "name", "user_id", "status", "protocol",
		"source_client_id", "local_host", "local_port", "public_port", "public_address", "public_host", "public_path", "public_url", "target_client_id", "target_scheme", "target_host", "target_port", "target_port_last", "target"}
)

// listenerText is where a mapping's connections come in.
func listenerText(o object) string {
	for _, public := range []string{"public_address", "public_url"} {
		if at := o.text(public); at != "-" {
			return at
		}
	}
	if port := o.text("public_port"); port != "-" {
		return "public:" + port
	}
	if host := o.text("public_host"); host != "-" {
		return "public:" + host + o.text("public_path")
	}
	return o.address("local_host", "local_port")
}

// serviceShown is the service of a mapping, for people.
func serviceShown(o object) string {
	if at := o.text("target"); at != "-" {
		if scheme := o.text("target_scheme"); scheme != "-" {
			at += " (" + scheme + ")"
		}
		return at
	}
	if last := o.text("target_port_last"); last != "-" {
		return o.address("target_host", "target_port") + "-" + last
	}
	if scheme := o.text("target_scheme"); scheme != "-" {
		return scheme + "://" + o.address("target_host", "target_port")
	}
	return o.address("target_host", "target_port")
}

func mappingCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "mapping", path: "/api/v1/mappings", columns: mappingColumns, first: mappingFields}
	cmd := &cobra.Command{Use: "mapping", Short: "Create, list, show, change and delete mappings"}
	cmd.AddCommand(r.createMapping(), filtering(r.list("user", "client"), "status", "protocol"), r.show(), r.updateMapping(), r.remove(), r.history())
	cmd.AddCommand(r.switches("Open a mapping's listener again", "Close a mapping's listener and end its streams")...)
	return cmd
}

func (r *resource) createMapping() *cobra.Command {
	var user, source, target int64
	var publicPort, protocol, name, listen, host, path, service string
	cmd := &cobra.Command{
		Use:   "create [--source CLIENT --listen [HOST:]PORT | --public-port PORT | --protocol http|tls [--host LABEL]] (--target CLIENT --service HOST:PORT | --targets ...)",
		Short: "Create a mapping: a listener at the source client, a public port or a public host; a service at the target client",
		Example: "  tunnox mapping create --protocol http --target 600000001 --service 127.0.0.1:3000\n" +
			"  tunnox mapping create --source 600000000 --listen 5433 --target 600000001 --service 127.0.0.1:5432\n" +
			"  tunnox mapping create --public-port 0 --target 600000001 --service 127.0.0.1:5432\n" +
			"  tunnox mapping create --protocol udp --public-port 20010-20019 --target 600000001 --service 127.0.0.1:5010-5019\n" +
			"  tunnox mapping create --protocol http --targets client_id=600000001,target=127.0.0.1:3000 --targets client_id=600000002,target=127.0.0.1:3000",
		Args: cobra.NoArgs,
	}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		body := map[string]any{"user_id": user, "protocol": protocol}
		switch {
		case target != 0:
			body["target_client_id"] = target
		case !cmd.Flags().Changed("targets"):
			return usageError("where do the connections go? Give --target and --service, or --targets for several")
		}
		if name != "" {
			body["name"] = name
		}
		for field, value := range map[string]string{"public_host": host, "public_path": path} {
			if value != "" {
				body[field] = value
			}
		}
		switch {
		case cmd.Flags().Changed("public-port"):
			ports, err := publicPorts(publicPort)
			if err != nil {
				return err
			}
			body["public_port"] = ports
		case listen != "":
			body["source_client_id"] = source
			if err := addListen(body, listen); err != nil {
				return err
			}
		case protocol != string(domain.ProtocolHTTP) && protocol != string(domain.ProtocolTLS):
			return usageError("where do the connections come in? Give --source and --listen, or --public-port; --protocol http and tls have a public host without them")
		}
		if err := addService(body, service); err != nil {
			return err
		}
		if err := addOptions(cmd.Flags(), mappingOptions, body); err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPost, r.path, body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	changes(cmd)
	flags := cmd.Flags()
	nameFlag(cmd, &user, "user", "user", "`user` the mapping belongs to, by name or id (default: the caller)")
	nameFlag(cmd, &source, "source", "client", "`client` that listens, by name or id")
	nameFlag(cmd, &target, "target", "client", "`client` that dials the service, by name or id")
	protocolFlag(cmd, &protocol)
	flags.StringVar(&listen, "listen", "", "`[host:]port` the source client listens on (host 127.0.0.1 unless given)")
	flags.StringVar(&publicPort, "public-port", "", "`port` of the forwarders' public ports that visitors come to, instead of a source client, or FROM-TO for several; 0 = one is chosen and kept")
	flags.StringVar(&host, "host", "", "`label` of the public host of an http or tls mapping, under the server's base domain, or a domain that you have verified, see tunnox domain (default: a label is chosen and kept)")
	flags.StringVar(&path, "path", "", "`path` of the public host that an http mapping has, with all below it (default: /)")
	flags.StringVar(&service, "service", "", "`[scheme://]host:port` the target client dials; with a range of public ports host:from-to for as many ports of the service; the scheme of an http mapping's service is http, https or h2c; unix:PATH is a socket, file:PATH a directory for http; none for socks5")
	flags.StringVar(&name, "name", "", "`name` for people")
	optionFlags(cmd, mappingOptions)
	cmd.MarkFlagsRequiredTogether("source", "listen")
	cmd.MarkFlagsMutuallyExclusive("source", "public-port", "host")
	cmd.MarkFlagsMutuallyExclusive("source", "public-port", "path")
	return cmd
}

func (r *resource) updateMapping() *cobra.Command {
	cmd := &cobra.Command{Use: "update " + r.word(), Short: "Change a mapping's listener, public port or host, service, options or name"}
	r.takesOne(cmd)
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		body, err := changedMapping(cmd.Flags())
		if err != nil {
			return err
		}
		path := r.path + "/" + args[0]
		if err := completeObjects(body, func() ([]byte, error) { return c.call(ctx, http.MethodGet, path, nil) }); err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPut, path, body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	changesOne(cmd)
	cmd.Flags().String("listen", "", "`[host:]port` the source client listens on from now on")
	cmd.Flags().String("service", "", "`[scheme://]host:port` the target client dials from now on, or unix:PATH, or file:PATH")
	cmd.Flags().String("host", "", "`label` of the public host from now on")
	cmd.Flags().String("path", "", "`path` of the public host that the mapping has from now on")
	cmd.Flags().String("public-port", "", "`port` of the forwarders' public ports that visitors come to from now on, or FROM-TO")
	cmd.Flags().String("name", "", "`name` from now on")
	optionFlags(cmd, mappingOptions)
	cmd.MarkFlagsOneRequired(append([]string{"listen", "service", "name", "public-port", "host", "path"}, optionNames(mappingOptions)...)...)
	return cmd
}

// changedMapping gives the body for what the flags change.
func changedMapping(flags *pflag.FlagSet) (map[string]any, error) {
	body := changedStrings(flags, map[string]string{"name": "name", "host": "public_host", "path": "public_path"})
	given := changedStrings(flags, map[string]string{"listen": "listen", "service": "service"})
	if listen, ok := given["listen"].(string); ok {
		if err := addListen(body, listen); err != nil {
			return nil, err
		}
	}
	if flags.Changed("public-port") {
		text, err := flags.GetString("public-port")
		if err != nil {
			return nil, err
		}
		if body["public_port"], err = publicPorts(text); err != nil {
			return nil, err
		}
	}
	if service, ok := given["service"].(string); ok {
		if err := addService(body, service); err != nil {
			return nil, err
		}
	}
	return body, addOptions(flags, mappingOptions, body)
}

// completeObjects adds what a mapping has to the objects of a body that changes some of
// their fields: the API replaces an object as a whole.
func completeObjects(body map[string]any, read func() ([]byte, error)) error {
	var has map[string]any
	for name, value := range body {
		object, ok := value.(map[string]any)
		if !ok {
			continue
		}
		if has == nil {
			b, err := read()
			if err != nil {
				return err
			}
			if has, err = parseObject(b); err != nil {
				return err
			}
		}
		if before, ok := has[name].(map[string]any); ok {
			body[name] = completed(object, before)
		}
	}
	return nil
}

func completed(object, before map[string]any) map[string]any {
	all := map[string]any{}
	for name, value := range before {
		all[name] = value
	}
	for name, value := range object {
		inner, ok := value.(map[string]any)
		if was, both := before[name].(map[string]any); ok && both {
			value = completed(inner, was)
		}
		all[name] = value
	}
	return all
}

// addListen adds the listener's fields. A port alone leaves the host out: the
// API's default, or what the mapping has.
func addListen(body map[string]any, listen string) error {
	if port, err := strconv.Atoi(listen); err == nil {
		body["local_port"] = port
		return nil
	}
	host, port, err := splitAddress(listen)
	if err != nil {
		return usageError("--listen %q: want PORT or HOST:PORT", listen)
	}
	body["local_port"] = port
	if host != "" {
		body["local_host"] = host
	}
	return nil
}

// addService adds the service's fields. Which schemes there are the server says.
func addService(body map[string]any, service string) error {
	if service == "" {
		return nil // a protocol that has none; the server says when one is missing
	}
	address := service
	if scheme, rest, ok := strings.Cut(service, "://"); ok {
		body["target_scheme"], address = scheme, rest
	}
	if isPlace(address) {
		body["target"] = address
		return nil
	}
	if host, port, err := net.SplitHostPort(address); err == nil && strings.Contains(port, "-") {
		ports, err := domain.ParsePortRange(port)
		if err != nil {
			return usageError("--service %q: %v", service, err)
		}
		body["target_host"], body["target_port"], body["target_port_last"] = host, ports.First, ports.Last
		return nil
	}
	host, port, err := splitAddress(address)
	if err != nil || host == "" {
		return usageError("--service %q: want HOST:PORT, unix:PATH or file:PATH", service)
	}
	body["target_host"], body["target_port"] = host, port
	return nil
}

// publicPorts reads --public-port. Which ports there are the server says.
func publicPorts(text string) (domain.PortRange, error) {
	ports, err := domain.ParsePortRange(text)
	if err != nil {
		return ports, usageError("--public-port: %v", err)
	}
	return ports, nil
}

// splitAddress leaves the port's range to the server, which names the fault.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}
