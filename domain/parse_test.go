package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// args are the words behind a command's name in a story.
type args struct {
	values map[string]string
	err    error
}

// parseCommand reads "create_user id=100000001 username=ann". A value may be
// quoted as in Go, and x*101 is x a hundred and one times.
func parseCommand(line string) (Command, error) {
	name, rest, _ := strings.Cut(line, " ")
	a, err := parseArgs(rest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	build, ok := commands[name]
	if !ok {
		return nil, fmt.Errorf("unknown command %q", name)
	}
	c := build(a)
	if a.err == nil && len(a.values) > 0 {
		a.err = fmt.Errorf("unused arguments %v", a.values)
	}
	if a.err == nil && c.CommandName() != name {
		a.err = fmt.Errorf("calls itself %s", c.CommandName())
	}
	if a.err != nil {
		return nil, fmt.Errorf("%s: %w", name, a.err)
	}
	return c, nil
}

// commands are all commands of the package, by the name they go by.
var commands = map[string]func(*args) Command{
	"create_user": func(a *args) Command {
		return CreateUser{ID: a.number("id"), Username: a.text("username"), Email: a.text("email"),
			PasswordHash: a.text("password_hash"), Role: Role(a.text("role")), Plan: a.text("plan"), Limits: a.limits()}
	},
	"set_user_role": func(a *args) Command { return SetUserRole{ID: a.number("id"), Role: Role(a.text("role"))} },
	"set_user_plan": func(a *args) Command {
		return SetUserPlan{ID: a.number("id"), Plan: a.text("plan"), Limits: a.limits()}
	},
	"create_key": func(a *args) Command {
		c := CreateKey{ID: a.number("id"), UserID: a.number("user"), Name: a.text("name"), Prefix: "tnk_1", Hash: a.hash("hash"),
			ExpiresAt: a.moment("expires"), At: a.moment("at")}
		for scope := range strings.SplitSeq(a.text("scopes"), ",") {
			if scope != "" {
				c.Scopes = append(c.Scopes, Scope(scope))
			}
		}
		return c
	},
	"revoke_key": func(a *args) Command { return RevokeKey{ID: a.number("id")} },
	"begin_login": func(a *args) Command {
		return BeginLogin{ID: a.number("id"), UserID: a.number("user"), PasswordHash: a.text("password_hash"),
			Family: a.hash("family"), Hash: a.hash("hash"), ExpiresAt: a.moment("expires")}
	},
	"refresh_login": func(a *args) Command {
		return RefreshLogin{ID: a.number("id"), Family: a.hash("family"), Hash: a.hash("hash"), Next: a.hash("next"),
			ExpiresAt: a.moment("expires"), At: a.moment("at")}
	},
	"end_login": func(a *args) Command { return EndLogin{ID: a.number("id"), Reason: EndReason(a.text("reason"))} },
	"create_share": func(a *args) Command {
		return CreateShare{ID: a.number("id"), UserID: a.number("user"), Name: a.text("name"), TargetClientID: a.number("target"),
			Protocol: Protocol(a.text("protocol")), Service: a.service(), Options: a.options(),
			Hash: a.hash("hash"), MaxUses: a.number("max_uses"), ExpiresAt: a.moment("expires"), At: a.moment("at")}.By(a.number("agent"))
	},
	"revoke_share": func(a *args) Command { return RevokeShare{ID: a.number("id")} },
	"redeem_share": func(a *args) Command {
		return RedeemShare{ID: a.number("id"), Hash: a.hash("hash"), MappingID: a.number("mapping"), RedeemerID: a.number("redeemer"),
			Any: a.text("any") == "true", SourceClientID: a.number("source"), Name: a.text("name"), Held: a.text("held") == "true",
			Origin: a.origin(), At: a.moment("at")}.By(a.number("agent"))
	},
	"create_invite": func(a *args) Command {
		return CreateInvite{ID: a.number("id"), UserID: a.number("user"), Name: a.text("name"), Hash: a.hash("hash"), MaxUses: a.number("uses"),
			ExpiresAt: a.moment("expires"), At: a.moment("at")}
	},
	"create_domain": func(a *args) Command {
		return CreateDomain{ID: a.number("id"), UserID: a.number("user"), Host: a.text("host"), Token: a.text("token")}
	},
	"verify_domain": func(a *args) Command { return VerifyDomain{ID: a.number("id")} },
	"delete_domain": func(a *args) Command { return DeleteDomain{ID: a.number("id")} },
	"revoke_invite": func(a *args) Command { return RevokeInvite{ID: a.number("id")} },
	"redeem_invite": func(a *args) Command {
		return RedeemInvite{ID: a.number("id"), Hash: a.hash("hash"), ClientID: a.number("client"), Name: a.text("name"), PublicKey: a.key(), Commands: Commands(a.text("commands")), At: a.moment("at")}
	},
	"create_webhook": func(a *args) Command {
		return CreateWebhook{ID: a.number("id"), UserID: a.number("user"), URL: a.text("url"), Events: a.list("events"),
			All: a.text("all") == "true", Description: a.text("description")}
	},
	"change_webhook": func(a *args) Command {
		c := ChangeWebhook{ID: a.number("id"), URL: a.optional("url"), Description: a.optional("description"), Admin: a.text("admin") == "true"}
		if _, ok := a.values["events"]; ok {
			events := a.list("events")
			c.Events = &events
		}
		if all := a.optional("all"); all != nil {
			is := *all == "true"
			c.All = &is
		}
		return c
	},
	"enable_webhook":        func(a *args) Command { return SetWebhookEnabled{ID: a.number("id"), Enabled: true} },
	"disable_webhook":       func(a *args) Command { return SetWebhookEnabled{ID: a.number("id"), Reason: a.text("reason")} },
	"rotate_webhook_secret": func(a *args) Command { return RotateWebhookSecret{ID: a.number("id")} },
	"delete_webhook":        func(a *args) Command { return DeleteWebhook{ID: a.number("id")} },
	"claim_client": func(a *args) Command {
		return ClaimClient{ID: a.number("id"), NewID: a.number("new"), UserID: a.number("user"), Name: a.text("name"), PublicKey: a.key()}
	},
	"change_user": func(a *args) Command {
		return ChangeUser{ID: a.number("id"), Username: a.optional("username"), Email: a.optional("email"),
			PasswordHash: a.optional("password_hash")}
	},
	"enable_user":  func(a *args) Command { return SetUserEnabled{ID: a.number("id"), Enabled: true} },
	"disable_user": func(a *args) Command { return SetUserEnabled{ID: a.number("id")} },
	"delete_user":  func(a *args) Command { return DeleteUser{ID: a.number("id")} },
	"erase_user":   func(a *args) Command { return EraseUser{ID: a.number("id")} },
	"create_client": func(a *args) Command {
		return CreateClient{ID: a.number("id"), UserID: a.number("user"), Name: a.text("name"),
			Description: a.text("description"), PublicKey: a.key(), Commands: Commands(a.text("commands"))}
	},
	"register_client": func(a *args) Command {
		return RegisterClient{ID: a.number("id"), Name: a.text("name"), PublicKey: a.key(), Limits: a.limits()}
	},
	"change_client": func(a *args) Command {
		return ChangeClient{ID: a.number("id"), Name: a.optional("name"), Description: a.optional("description"),
			Commands: (*Commands)(a.optional("commands")), UserID: a.optionalNumber64("user")}
	},
	"announce_key":      func(a *args) Command { return AnnounceKey{ID: a.number("id"), StaticKey: a.key()} },
	"rotate_credential": func(a *args) Command { return RotateCredential{ID: a.number("id"), PublicKey: a.key()} },
	"enable_client":     func(a *args) Command { return SetClientEnabled{ID: a.number("id"), Enabled: true} },
	"disable_client":    func(a *args) Command { return SetClientEnabled{ID: a.number("id")} },
	"disconnect_client": func(a *args) Command {
		return DisconnectClient{ID: a.number("id"), Nodes: a.list("nodes"), Epoch: a.number("epoch")}
	},
	"drain_node": func(a *args) Command { return DrainNode{ID: a.number("id"), Since: a.moment("since")} },
	"certify_node": func(a *args) Command {
		return CertifyNode{ID: a.number("id"), Key: a.hash("key"), Proved: a.hash("proved"), Names: a.list("names"), Token: a.text("token"),
			Until: a.moment("until"), At: a.moment("at")}
	},
	"revoke_node":   func(a *args) Command { return RevokeNode{ID: a.number("id")} },
	"delete_client": func(a *args) Command { return DeleteClient{ID: a.number("id")} },
	"create_mapping": func(a *args) Command {
		return CreateMapping{ID: a.number("id"), UserID: a.number("user"), Any: a.text("any") == "true",
			Protocol: Protocol(a.text("protocol")), SourceClientID: a.number("source"), TargetClientID: a.number("target"),
			Parts: Parts{Name: a.text("name"), Origin: a.origin(), Service: a.service(), Options: a.options()}}.By(a.number("agent")).Offered(a.offer())
	},
	"change_mapping": func(a *args) Command {
		return ChangeMapping{ID: a.number("id"), By: a.number("by"), Patch: a.patch(Mapping{}, map[string]string{"user_id": "user",
			"source_client_id": "source", "target_client_id": "target", "target": "service"})}.Offered(a.offer())
	},
	"enable_mapping":  func(a *args) Command { return SetMappingEnabled{ID: a.number("id"), Enabled: true} },
	"disable_mapping": func(a *args) Command { return SetMappingEnabled{ID: a.number("id")} },
	"delete_mapping":  func(a *args) Command { return DeleteMapping{ID: a.number("id"), IfHeld: a.text("if_held") == "true"} },
	"set_quota": func(a *args) Command {
		c := SetQuota{ID: a.number("id"), Limits: a.limits()}
		if keep := a.text("keep"); keep != "" {
			c.Keep = strings.Split(keep, ",")
		}
		return c
	},
}

func parseArgs(rest string) (*args, error) {
	a := &args{values: map[string]string{}}
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, fmt.Errorf("want key=value, got %q", rest)
		}
		value, next, err := parseValue(after)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		a.values[key], rest = value, next
	}
	return a, nil
}

func parseValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, " ")
	} else {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", err
		}
		rest = s[len(quoted):]
		if value, err = strconv.Unquote(quoted); err != nil {
			return "", "", err
		}
	}
	if what, count, ok := strings.Cut(value, "*"); ok {
		if n, err := strconv.Atoi(count); err == nil {
			value = strings.Repeat(what, n)
		}
	}
	return value, rest, nil
}

func (a *args) optional(key string) *string {
	v, ok := a.values[key]
	if !ok {
		return nil
	}
	delete(a.values, key)
	return &v
}

// list gives what stands between commas.
func (a *args) list(key string) []string {
	if s := a.text(key); s != "" {
		return strings.Split(s, ",")
	}
	return nil
}

func (a *args) text(key string) string {
	if v := a.optional(key); v != nil {
		return *v
	}
	return ""
}

func (a *args) optionalNumber64(key string) *int64 {
	v := a.optional(key)
	if v == nil || *v == "null" {
		return nil
	}
	n, err := strconv.ParseInt(*v, 10, 64)
	if err != nil {
		a.err = err
	}
	return &n
}

func (a *args) optionalNumber(key string) *int {
	n := a.optionalNumber64(key)
	if n == nil {
		return nil
	}
	i := int(*n)
	return &i
}

func (a *args) number(key string) int64 {
	if n := a.optionalNumber64(key); n != nil {
		return *n
	}
	return 0
}

// key gives a public key of one byte repeated, so that a story can tell keys
// apart; key_length makes one that is too short or too long.
func (a *args) key() []byte {
	length := publicKeyLength
	if n := a.optionalNumber("key_length"); n != nil {
		length = *n
	}
	return bytes.Repeat([]byte{byte(a.number("key"))}, length)
}

// hash gives a hash of one byte repeated, of the wrong length when there is none.
func (a *args) hash(key string) []byte {
	n := a.optionalNumber(key)
	if n == nil {
		return nil
	}
	return bytes.Repeat([]byte{byte(*n)}, hashLength)
}

// moment gives a time so many hours after the first of January, noon; the zero
// time when there is none.
func (a *args) moment(key string) time.Time {
	n := a.optionalNumber(key)
	if n == nil {
		return time.Time{}
	}
	return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(*n) * time.Hour)
}

func (a *args) origin() Origin {
	return Origin{LocalHost: a.text("local_host"), LocalPort: int(a.number("local_port")), PublicPort: a.ports("public_port"),
		PublicHost: a.text("public_host"), PublicPath: a.text("public_path")}
}

func (a *args) ports(key string) PortRange {
	text := a.text(key)
	if text == "" {
		return PortRange{}
	}
	r, err := ParsePortRange(text)
	if err != nil {
		a.err = err
	}
	return r
}

func (a *args) options() Options {
	o := Options{HeldBy: Holder(a.text("held_by"))}
	if a.text("listing") != "" {
		o.Files = &Files{Listing: true}
	}
	if text := a.text("targets"); text != "" {
		o.Targets = a.targets(text)
	}
	return o
}

// targets reads CLIENT@SERVICE, with commas between.
func (a *args) targets(list string) []Target {
	targets := []Target{}
	for text := range strings.SplitSeq(list, ",") {
		id, service, ok := strings.Cut(text, "@")
		n, err := strconv.ParseInt(id, 10, 64)
		if ok && err != nil {
			a.err = err
		}
		if ok {
			targets = append(targets, Target{ClientID: n, Target: service})
		}
	}
	return targets
}

// offer is what there is of public ports and hosts: ports=FROM-TO, draw=N,N,
// domains=D,D, labels=L,L and now=HOUR.
func (a *args) offer() PublicOffer {
	domains := a.list("domains")
	o := PublicOffer{Known: a.text("unknown") == "", Now: a.moment("now"), Domains: map[Protocol][]string{ProtocolHTTP: domains, ProtocolTLS: domains}, Labels: a.list("labels")}
	if text := a.text("ports"); text != "" {
		var r PortRange
		if _, err := fmt.Sscanf(text, "%d-%d", &r.First, &r.Last); err != nil {
			a.err = err
		}
		o.Ports = []PortRange{r}
	}
	for _, text := range a.list("draw") {
		port, err := strconv.Atoi(text)
		if err != nil {
			a.err = err
		}
		o.Draw = append(o.Draw, port)
	}
	return o
}

func (a *args) service() Service {
	return Service{TargetHost: a.text("target_host"), TargetPort: int(a.number("target_port")), TargetScheme: a.text("target_scheme"), Target: a.text("service")}
}

// patch takes the fields of a value that are named, some by a shorter name.
func (a *args) patch(of any, short map[string]string) Patch {
	p := Patch{}
	for _, field := range Fields(of) {
		name := cmp.Or(short[field.Name], field.Name)
		if field.Name == "targets" {
			if text := a.optional(name); text != nil {
				p[field.Name], _ = json.Marshal(a.targets(*text)) // texts and numbers can be written
			}
		} else if field.Type == reflect.TypeFor[PortRange]() {
			if text := a.optional(name); text != nil {
				p[field.Name], _ = json.Marshal(*text)
			}
		} else if field.Type.Kind() == reflect.String {
			if text := a.optional(name); text != nil {
				p[field.Name], _ = json.Marshal(*text) // a text can be written
			}
		} else if n := a.optionalNumber64(name); n != nil {
			p[field.Name] = json.RawMessage(strconv.FormatInt(*n, 10))
		}
	}
	return p
}

func (a *args) limits() Limits {
	var l Limits
	for _, limit := range l.fields() {
		*limit.at = a.optionalNumber64(limit.Name)
	}
	return l
}
