package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/proxyheader"
	"github.com/tunnox-net/tunnox/webhook"
)

// config is what a tunnoxd process was told. Every field is declared once, in
// declare; its environment variable and its key in the file follow from the flag.
type config struct {
	Data            string
	API             string
	Listen          string
	WS              string // another address for WebSocket
	QUIC            string // "" = the number of --listen
	Metrics         string
	Postgres        string
	Redis           string
	RedisFile       string
	RedisCA         string
	AdvertiseAgents string
	AdvertiseAPI    string
	PublicPorts     string // FROM-TO
	PublicAddress   string
	HTTP            string
	BaseDomain      string
	AdvertiseHTTP   string
	HTTPS           string
	HTTP3           string // "" = the number of --https
	TLS             string
	AdvertiseTLS    string
	APIHost         string
	Certificate     string // files, separated by commas
	CertificateKey  string // files, separated by commas
	ACME            string // an e-mail address, or on
	ACMECA          string // URL
	ACMERoot        string // file
	ACMEDNSCommand  string // program
	Resolver        string // host:port

	State           string
	Bridge          string
	AdvertiseBridge string
	BridgeIdle      time.Duration
	Control         string // host:port, with commas between several
	JoinTokenFile   string
	NodeCert        string
	NodeKey         string
	ClusterCA       string

	CORSOrigins string // with commas between
	Proxies     string // --trusted-proxies, with commas between
	Heralds     string // --proxy-protocol-from, the same
	RateLimit   float64
	RateBurst   int

	JWTKey          string // files, with commas between several
	FirstInvite     string
	Anonymous       string
	AnonymousExpiry time.Duration
	HeldGrace       time.Duration

	WebhookNetworks string // with commas between
	WebhookHTTP     bool

	LogLevel  string
	LogFormat string
	PProf     bool
	Drain     time.Duration

	UsageInterval   time.Duration
	MetricsClients  int
	MetricsMappings int
	AccessLog       string

	hostsGiven, portsGiven   bool // a flag, a variable or the file says something of them
	tryoutHosts, tryoutPorts bool // tryOut has chosen them

	plans []httpapi.NamedPlan // the section plans of the file; no flag, since it is data

	// TUNNOXD_API_KEY and _BEFORE; no flags, since every process sees another's arguments.
	apiKey, apiKeyBefore string
}

// The settings by the flag's name. A command takes those that concern it.
var (
	commonSettings    = []string{"log-level", "log-format"}
	serveSettings     = []string{"data", "api", "listen", "ws", "quic", "metrics", "postgres", "redis", "redis-ca", "advertise-agents", "advertise-api", "public-ports", "public-address", "http", "https", "http3", "certificate", "certificate-key", "acme", "acme-ca", "acme-root", "acme-dns-command", "tls", "base-domain", "advertise-http", "advertise-tls", "api-host", "proxy-protocol-from", "pprof", "drain", "state", "bridge", "advertise-bridge", "bridge-idle", "cors-origins", "trusted-proxies", "rate-limit", "rate-burst", "jwt-key", "first-invite", "anonymous", "anonymous-expiry", "held-grace", "webhook-networks", "webhook-http", "resolver", "usage-interval", "metrics-clients", "metrics-mappings", "access-log"}
	controlSettings   = []string{"data", "api", "state", "metrics", "postgres", "redis", "redis-ca", "acme", "acme-ca", "acme-root", "acme-dns-command", "pprof", "drain", "cors-origins", "trusted-proxies", "rate-limit", "rate-burst", "jwt-key", "anonymous", "anonymous-expiry", "held-grace", "webhook-networks", "webhook-http", "resolver"}
	forwarderSettings = []string{"data", "listen", "ws", "quic", "metrics", "redis", "redis-file", "redis-ca", "advertise-agents", "advertise-api", "public-ports", "public-address", "http", "https", "http3", "certificate", "certificate-key", "tls", "base-domain", "advertise-http", "advertise-tls", "api-host", "proxy-protocol-from", "trusted-proxies", "pprof", "drain", "bridge", "advertise-bridge", "bridge-idle", "control", "join-token-file", "node-cert", "node-key", "cluster-ca", "usage-interval", "metrics-clients", "metrics-mappings", "access-log"}
	migrateSettings   = []string{"data", "postgres"}
	tokenSettings     = []string{"data", "postgres"}
	redisUserSettings = []string{"redis", "redis-ca"}
	rebuildSettings   = []string{"data", "postgres", "redis", "redis-ca"}
	logSettings       = []string{"data", "postgres"}
)

// declare gives every setting its flag, default and sentence.
func (c *config) declare() *pflag.FlagSet {
	f := pflag.NewFlagSet("all", pflag.ContinueOnError)
	f.StringVar(&c.Data, "data", "./tunnox-data", "`directory` for the database, the API key and the server's identity")
	f.StringVar(&c.API, "api", "127.0.0.1:9000", "`address` of the REST API")
	f.StringVar(&c.Listen, "listen", ":8080", "`address` that agents connect to")
	f.StringVar(&c.WS, "ws", "", "another `address` for the WebSockets of agents, without TLS, behind a reverse proxy (empty = WebSockets on --listen only)")
	f.StringVar(&c.QUIC, "quic", "", "UDP `address` that agents connect to over QUIC, or off (empty = the address of --listen)")
	f.StringVar(&c.Metrics, "metrics", "127.0.0.1:9090", "`address` of /metrics, /health and /ready")
	f.StringVar(&c.Postgres, "postgres", "", "`URL` of the Postgres that keeps the log")
	f.StringVar(&c.Redis, "redis", "", "`URL` of the Redis for read models, feed and presence")
	f.StringVar(&c.RedisFile, "redis-file", "", "`file` with the URL of Redis, instead of --redis. The command tunnoxd redis-user writes it. It is read again for every connection")
	f.StringVar(&c.AdvertiseAgents, "advertise-agents", "", "`host:port` at which agents reach this server, or several, separated by commas, the best first. Join lines and certificates contain them, and agents try one after the other (default: the address of --listen; if that is every address, the first one of this machine)")
	f.StringVar(&c.AdvertiseAPI, "advertise-api", "", "`URL` at which people reach the REST API, such as https://tunnox.example.org. Machines that join are told it, so that tunnox login needs no --api (default: the address of --api; if that is loopback, only machines that connect from this one are told it)")
	f.StringVar(&c.PublicPorts, "public-ports", "", "`FROM-TO`: the ports for visitors, for mappings without a source client (empty = none; serve without --postgres: 20000-20099, for this machine only)")
	f.StringVar(&c.PublicAddress, "public-address", "", "`host` at which visitors reach --public-ports. If it is an address of this machine, the server listens on this address only; 0.0.0.0 is all of IPv4 (default: the server tells the first address of this machine, and listens on every address)")
	f.StringVar(&c.HTTP, "http", "", "`address` for visitors of public hosts, with HTTP/1.1 or HTTP/2, without TLS (empty = none; serve without --postgres: 127.0.0.1:8081, or another port if it is taken, with --base-domain localhost)")
	f.StringVar(&c.HTTPS, "https", "", "`address` for visitors of public hosts over TLS, with HTTP/1.1, HTTP/2 or HTTP/3; visitors of --http are then redirected, and hosts of tls mappings are passed through. Certificates come from --certificate, or from --acme, at a forwarder that of its control plane (empty = none)")
	f.StringVar(&c.HTTP3, "http3", "", "UDP `address` for visitors of --https over HTTP/3, or off (empty = the address of --https; with --proxy-protocol-from, off)")
	f.StringVar(&c.TLS, "tls", "", "`address` for visitors of tls mappings alone, whose TLS is passed through to the service; it needs no certificate (empty = none; serve without --postgres: 127.0.0.1:8443, or another port if it is taken, with --base-domain localhost)")
	f.StringVar(&c.Certificate, "certificate", "", "`files` with the certificates of --https in PEM, each with its chain, separated by commas; a changed file is read again")
	f.StringVar(&c.CertificateKey, "certificate-key", "", "`files` with the keys of --certificate, in the same order")
	f.StringVar(&c.ACME, "acme", "", "get certificates of public hosts from a certificate authority, and renew them: the `e-mail address` that the authority may write to, or on for none. With it you agree to the authority's terms (empty = no)")
	f.StringVar(&c.ACMECA, "acme-ca", "", "`URL` of the directory of the authority of --acme (default: Let's Encrypt, "+letsEncrypt+")")
	f.StringVar(&c.ACMERoot, "acme-root", "", "`file` with the certificates that vouch for the server of --acme-ca (empty = those of the system)")
	f.StringVar(&c.ACMEDNSCommand, "acme-dns-command", "", "`program` that makes and removes TXT records, called with present or cleanup, the name and the value. With it the base domain gets one wildcard certificate, and no public host below it needs an order (empty = each host gets its own)")
	f.StringVar(&c.Resolver, "resolver", "", "`host:port` of the name server that is asked for the TXT records of users' own domains (empty = those of the system)")
	f.StringVar(&c.BaseDomain, "base-domain", "", "`domain` whose names lead here, such as t.example.org: the public host brave-otter is brave-otter.t.example.org")
	f.StringVar(&c.AdvertiseHTTP, "advertise-http", "", "`URL` at which visitors reach --http, with * in place of the public host, such as https://*.t.example.org behind a proxy with TLS (default: http://*.DOMAIN, with the port of --http)")
	f.StringVar(&c.AdvertiseTLS, "advertise-tls", "", "`URL` at which visitors of tls mappings reach --tls or --https, with * in place of the public host, such as https://*.t.example.org if another port leads there (default: https://*.DOMAIN, with the port of --tls or --https)")
	f.StringVar(&c.APIHost, "api-host", "", "`host` at which --https serves the REST API too, for example the base domain itself; no mapping can have it (empty = the API is at --api only)")
	f.StringVar(&c.State, "state", "", "`address` of the State service, for forwarders (control: 127.0.0.1:50051; serve: empty = no other forwarder joins; environment: TUNNOX_STATE_ADDRESS)")
	f.StringVar(&c.Bridge, "bridge", ":50052", "`address` that other forwarders of the cluster connect to")
	f.StringVar(&c.AdvertiseBridge, "advertise-bridge", "", "`host:port` at which other forwarders reach this one (default: the address of --bridge; if that is every address, the first one of this machine)")
	f.DurationVar(&c.BridgeIdle, "bridge-idle", 5*time.Minute, "how long a connection to another forwarder stays open without streams; the last connection always stays open")
	f.StringVar(&c.Control, "control", "", "`host:port` of the control plane's State service, or several, separated by commas (empty = no cluster: clients at other forwarders are offline)")
	f.StringVar(&c.JoinTokenFile, "join-token-file", "", "`file` with the cluster's join token, for the first certificate")
	f.StringVar(&c.NodeCert, "node-cert", "", "`file` with this node's certificate, instead of one from the control plane")
	f.StringVar(&c.NodeKey, "node-key", "", "`file` with the key of --node-cert")
	f.StringVar(&c.RedisCA, "redis-ca", "", "`file` with the certificates of the authorities that vouch for Redis over TLS (rediss://; empty = those of the system)")
	f.StringVar(&c.ClusterCA, "cluster-ca", "", "`file` with the certificates of the authority that signs for nodes and for the content of Redis; needed with --node-cert, or without --control")
	f.StringVar(&c.CORSOrigins, "cors-origins", "", "`origins` whose pages may call the API, separated by commas; * is every origin (empty = none)")
	f.StringVar(&c.Heralds, "proxy-protocol-from", "", "`networks` of the proxies before --http, --https and the public TCP ports, separated by commas. These proxies must send the PROXY protocol, version 1 or 2. From others it is not believed (empty = no proxy)")
	f.StringVar(&c.Proxies, "trusted-proxies", "", "`networks` of the proxies before the API and --http, for example 10.0.0.0/8, separated by commas. Their X-Forwarded-For and Forwarded headers are believed (empty = no proxy)")
	f.Float64Var(&c.RateLimit, "rate-limit", 100, "API requests per `second` of one caller, or of one address without a key (0 = no limit)")
	f.IntVar(&c.RateBurst, "rate-burst", 200, "`number` of API requests that one caller may send at once before --rate-limit applies")
	f.StringVar(&c.JWTKey, "jwt-key", "", "`file` with the key that signs access tokens: Ed25519 or RSA in PEM, or HS256: and a secret. After commas come files with older keys that are still valid (default: jwt-key in --data; all control planes of a cluster need the same keys)")
	f.StringVar(&c.FirstInvite, "first-invite", "on", "on: the first start creates the user admin with an invitation, and prints the invitation; off: it creates neither")
	f.StringVar(&c.Anonymous, "anonymous", "off", "on: an agent without identity and invitation gets an identity, so anybody can write to the log; off: it is refused")
	f.DurationVar(&c.HeldGrace, "held-grace", domain.HeldGrace, "how `long` a mapping of a program in the foreground lives after its agent has gone")
	f.DurationVar(&c.AnonymousExpiry, "anonymous-expiry", 30*24*time.Hour, "how `long` an anonymous client without mappings may be away before it is deleted; 0 = for ever")
	f.StringVar(&c.WebhookNetworks, "webhook-networks", "", "private or local `networks` that webhooks may reach, such as 10.1.0.0/16, separated by commas (empty = the Internet only)")
	f.BoolVar(&c.WebhookHTTP, "webhook-http", false, "allow http in the URLs of webhooks; everybody on the way can read these messages")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.BoolVar(&c.PProf, "pprof", false, "serve /debug/pprof on the metrics address (loopback only)")
	f.DurationVar(&c.UsageInterval, "usage-interval", time.Second, "how often a forwarder reports usage; a forwarder that is killed loses the usage of this time at most")
	f.IntVar(&c.MetricsClients, "metrics-clients", 0, "`number` of clients that get a series of their own in the metric tunnox_client_connections (0 = none)")
	f.IntVar(&c.MetricsMappings, "metrics-mappings", 100, "`number` of mappings with series of their own in tunnox_http_requests_total; the others together are one (0 = all together)")
	f.StringVar(&c.AccessLog, "access-log", "", "`file` that gets a line of JSON for each request at --http and --https, with the visitor's address; begun anew within a second when it is renamed or removed, by logrotate for example, and at once on SIGHUP (empty = none)")
	f.DurationVar(&c.Drain, "drain", 10*time.Second, "how long a shutdown waits for work to end")
	return f
}

// flags adds the named settings to a command's flags.
func (c *config) flags(to *pflag.FlagSet, names ...[]string) {
	all := c.declare()
	for _, name := range slices.Concat(names...) {
		to.AddFlag(all.Lookup(name))
	}
	postgres, redis := to.Lookup("postgres"), to.Lookup("redis")
	switch { // which of the two a command can do without depends on the command
	case postgres != nil && redis == nil:
		postgres.Usage += " (empty = what is in --data)"
	case redis != nil && postgres == nil && to.Lookup("redis-file") != nil:
		redis.Usage += " (required, or --redis-file)"
	case redis != nil && postgres == nil:
		redis.Usage += " (required)"
	case redis != nil && to.Lookup("metrics") != nil && to.Lookup("listen") == nil:
		redis.Usage += " (required)"
		postgres.Usage += " (required)"
	case redis != nil:
		postgres.Usage += " (with --redis; empty = embedded)"
		redis.Usage += " (with --postgres)"
	}
	to.String("config", "", "YAML `file` with the same settings, for example \"data: /var/lib/tunnox\" (environment: TUNNOX_CONFIG)")
}

// load completes what the command line left open: environment, then file. It
// returns every fault it found, not the first.
func (c *config) load(flags *pflag.FlagSet, environ []string) error {
	known := (&config{}).declare()
	env, errs := readEnvironment(known, environ)
	for _, entry := range environ {
		if key, ok := strings.CutPrefix(entry, "TUNNOXD_API_KEY="); ok {
			c.apiKey = key
		}
		if key, ok := strings.CutPrefix(entry, "TUNNOXD_API_KEY_BEFORE="); ok {
			c.apiKeyBefore = key
		}
	}
	path, err := flags.GetString("config")
	if err != nil {
		return err
	}
	if path == "" {
		path = env["config"]
	}
	file, fileErrs := readFile(known, path)
	errs = append(errs, fileErrs...)
	var planErrs []error
	c.plans, planErrs = readPlans(path)
	errs = append(errs, planErrs...)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || known.Lookup(f.Name) == nil {
			return
		}
		value, from := "", ""
		if v, ok := env[f.Name]; ok {
			value, from = v, variable(f.Name)
		} else if v, ok := file[f.Name]; ok {
			value, from = v, f.Name+" in "+path
		} else {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
		}
	})
	c.hostsGiven, c.portsGiven = given(flags, hostSettings), given(flags, portSettings)
	return errors.Join(append(errs, c.check(flags)...)...)
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	if flag == "state" {
		return "TUNNOX_STATE_ADDRESS" // TUNNOX_STATE is the agent's folder
	}
	return "TUNNOX_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// check returns what is wrong with the settings the command has.
func (c *config) check(flags *pflag.FlagSet) (errs []error) {
	fault := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", name, fmt.Sprintf(format, args...)))
	}
	has := func(name string) bool { return flags.Lookup(name) != nil }

	// TUNNOX_API is the server's address to tunnoxd and its URL to tunnox; both
	// read either, so that one environment serves both programs.
	c.API = strings.TrimSuffix(strings.TrimPrefix(c.API, "http://"), "/")
	for name, address := range map[string]string{"api": c.API, "listen": c.Listen, "metrics": c.Metrics, "state": c.State, "bridge": c.Bridge, "ws": c.WS, "quic": c.QUIC, "http": c.HTTP, "https": c.HTTPS, "http3": c.HTTP3, "tls": c.TLS} {
		optional := name == "state" || name == "ws" || name == "quic" || name == "http" || name == "https" || name == "http3" || name == "tls"
		if has(name) && !(optional && address == "") && !((name == "quic" || name == "http3") && address == quicOff) {
			if err := checkAddress(address); err != nil {
				fault(name, "%q %v", address, err)
			}
		}
	}
	// People write a blank behind the comma; what is kept, printed and sent has none.
	for name, list := range map[string]*string{"advertise-agents": &c.AdvertiseAgents, "advertise-bridge": &c.AdvertiseBridge, "control": &c.Control} {
		addresses := words(*list)
		*list = strings.Join(addresses, ",")
		for _, address := range addresses {
			if err := checkRemote(address); has(name) && err != nil {
				fault(name, "%q %v", address, err)
			}
		}
		if name == "advertise-bridge" && has(name) && len(addresses) > 1 {
			fault(name, "want one address, %q are %d", *list, len(addresses))
		}
	}
	if has("public-ports") && c.PublicPorts != "" {
		if _, err := parsePorts(c.PublicPorts); err != nil {
			fault("public-ports", "%v", err)
		}
	}
	if has("public-address") && c.PublicAddress != "" {
		if host, port, err := net.SplitHostPort(c.PublicAddress); err == nil && host != "" && port != "" && strings.Count(c.PublicAddress, ":") == 1 {
			fault("public-address", "%q has a port: name the host alone", c.PublicAddress)
		}
	}
	if has("http") {
		errs = append(errs, c.checkHosts()...)
	}
	if has("resolver") && c.Resolver != "" {
		if err := checkRemote(c.Resolver); err != nil {
			fault("resolver", "%q %v", c.Resolver, err)
		}
	}
	if has("acme") {
		errs = append(errs, c.checkACME()...)
	}
	if has("data") && c.Data == "" {
		fault("data", "must name a directory")
	}
	if has("postgres") && c.Postgres != "" {
		if err := checkURL(c.Postgres, "postgres", "postgresql"); err != nil {
			fault("postgres", "%v", err)
		}
	}
	if has("redis") && c.Redis != "" {
		if err := checkURL(c.Redis, "redis", "rediss", "unix"); err != nil {
			fault("redis", "%v", err)
		}
	}
	if has("pprof") && c.PProf && !loopback(c.Metrics) {
		fault("pprof", "profiles show memory; it needs --metrics on a loopback address, not %q", c.Metrics)
	}
	if has("advertise-api") && c.AdvertiseAPI != "" {
		if err := checkAPIURL(c.AdvertiseAPI); err != nil {
			fault("advertise-api", "%v", err)
		}
	}
	if has("cors-origins") {
		for _, origin := range c.corsOrigins() {
			u, err := url.Parse(origin)
			if origin != "*" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != origin) {
				fault("cors-origins", "%q is not an origin such as https://example.org", origin)
			}
		}
	}
	if has("trusted-proxies") {
		if _, err := c.trustedProxies(); err != nil {
			fault("trusted-proxies", "%v", err)
		}
	}
	if has("proxy-protocol-from") {
		if _, err := parseNetworks(c.Heralds); err != nil {
			fault("proxy-protocol-from", "%v", err)
		}
	}
	if has("rate-limit") && (c.RateLimit < 0 || c.RateBurst < 1) {
		fault("rate-limit", "must not be negative, and --rate-burst at least 1")
	}
	if has("anonymous") && c.Anonymous != "on" && c.Anonymous != "off" {
		fault("anonymous", "%q is neither on nor off", c.Anonymous)
	}
	if has("first-invite") && c.FirstInvite != "on" && c.FirstInvite != "off" {
		fault("first-invite", "%q is neither on nor off", c.FirstInvite)
	}
	if has("held-grace") && c.HeldGrace < time.Second {
		fault("held-grace", "must be a second or more, is %v", c.HeldGrace)
	}
	if has("anonymous-expiry") && c.AnonymousExpiry < 0 {
		fault("anonymous-expiry", "must not be negative")
	}
	if has("webhook-networks") {
		if _, err := webhook.ParseNetworks(c.WebhookNetworks); err != nil {
			fault("webhook-networks", "%v", err)
		}
	}
	if has("usage-interval") && (c.UsageInterval < shortestReport || c.UsageInterval > longestReport) {
		fault("usage-interval", "must be between %v and %v", shortestReport, longestReport)
	}
	if has("metrics-clients") && (c.MetricsClients < 0 || c.MetricsClients > 10_000) {
		fault("metrics-clients", "must be between 0 and 10000; every client is a series that somebody stores")
	}
	if has("metrics-mappings") && (c.MetricsMappings < 0 || c.MetricsMappings > 10_000) {
		fault("metrics-mappings", "must be between 0 and 10000; every mapping is up to six series that somebody stores")
	}
	if has("drain") && c.Drain < 0 {
		fault("drain", "must not be negative")
	}
	if has("bridge-idle") && c.BridgeIdle <= 0 {
		fault("bridge-idle", "must be positive")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		fault("log-level", "%q is not one of debug, info, warn, error", c.LogLevel)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		fault("log-format", "%q is not one of text, json", c.LogFormat)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}

// corsOrigins lists --cors-origins.
func (c *config) corsOrigins() []string { return words(c.CORSOrigins) }

// trustedProxies lists --trusted-proxies.
func (c *config) trustedProxies() ([]netip.Prefix, error) { return parseNetworks(c.Proxies) }

// heralded gives a listener for visitors that proxies before it may announce.
func (c *config) heralded(l net.Listener) net.Listener {
	from, err := parseNetworks(c.Heralds)
	if err != nil || len(from) == 0 {
		return l // check has told what is wrong
	}
	return &proxyheader.Listener{Listener: l, From: from}
}

// parseNetworks reads a list of networks; an address alone is a network of one.
func parseNetworks(list string) (networks []netip.Prefix, err error) {
	for _, text := range words(list) {
		network, err := netip.ParsePrefix(text)
		if ip, addrErr := netip.ParseAddr(text); addrErr == nil {
			network, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither a network such as 10.0.0.0/8 nor an address", text)
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// words splits a list of a setting.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// checkAddress accepts what net.Listen does, names of ports left out: a script
// that reads addresses back wants numbers.
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("is not host:port")
	}
	if _, err := net.LookupPort("tcp", port); err != nil || strings.Trim(port, "0123456789") != "" || port == "" {
		return fmt.Errorf("has no port between 0 and 65535")
	}
	return nil
}

// checkRemote accepts an address that others can dial: it has a host, and a port that
// is not 0.
func checkRemote(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return errors.New("is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("has no port between 1 and 65535")
	}
	return nil
}

// checkURL never repeats the URL: it holds a password.
func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	if err != nil || !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("want a URL that begins with %s://", schemes[0])
	}
	return nil
}

// loopback reports whether an address is reached from this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
