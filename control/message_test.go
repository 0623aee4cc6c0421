package control

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// TestNothingPersonalGoesToForwarders looks into the whole message, so that a field
// that users get one day is either seen here or left out.
func TestNothingPersonalGoesToForwarders(t *testing.T) {
	user := domain.User{}
	var secrets []string
	v := reflect.ValueOf(&user).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprintf("personal%d", i))
			secrets = append(secrets, f.String())
		case reflect.Slice:
			f.SetBytes(fmt.Appendf(nil, "personal%d", i))
			secrets = append(secrets, base64.StdEncoding.EncodeToString(f.Bytes()))
		case reflect.Int64:
			f.SetInt(770_000 + int64(i))
		case reflect.Bool:
			f.SetBool(true)
		}
	}
	user.CreatedAt, user.UpdatedAt = time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()
	if len(secrets) < 5 {
		t.Fatalf("a user has only %q", secrets)
	}
	m, err := viewMessage(domain.ClientView{Position: 7, Users: []domain.Versioned[domain.User]{{Version: 3, State: user}}})
	must(t, err)
	for _, secret := range append(secrets, fmt.Sprint(user.PasswordNumber)) {
		if strings.Contains(string(m.View), secret) {
			t.Errorf("%s is in %s", secret, m.View)
		}
	}
	// What is left of a user, by name: what else has a value was forgotten by lean.
	var sent struct {
		Users []struct{ State map[string]any }
	}
	must(t, json.Unmarshal(m.View, &sent))
	maps.DeleteFunc(sent.Users[0].State, func(_ string, value any) bool { return value == "" })
	if got, want := slices.Sorted(maps.Keys(sent.Users[0].State)), []string{"created_at", "deleted", "disabled", "id", "updated_at"}; !slices.Equal(got, want) {
		t.Errorf("forwarders get %q of a user, want %q", got, want)
	}
	if got, err := viewOf(m); err != nil || got.Users[0].Version != 3 || !got.Users[0].State.Disabled || !got.Users[0].State.Deleted {
		t.Errorf("a user arrives as %+v, %v", got.Users, err)
	}
}

// TestServersOfOtherVersionsAreToldApart: a control plane that does not have this
// service, of which a newer one and an older one are kinds, is not taken for one
// that is away.
func TestServersOfOtherVersionsAreToldApart(t *testing.T) {
	for name, checked := range map[string]bool{"found out in advance": true, "found out by calling": false} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			identity, err := p.authority.IssueState()
			must(t, err)
			other := grpc.NewServer(grpc.Creds(credentials.NewTLS(serverTLS(func() (*tls.Certificate, error) { return &identity.Certificate, nil }, p.authority.Roots(), p.clock.Now))))
			desc := controlpb.State_ServiceDesc
			desc.ServiceName = "tunnox.control.v1.State"
			other.RegisterService(&desc, controlpb.UnimplementedStateServer{})
			if checked {
				grpc_health_v1.RegisterHealthServer(other, health.NewServer())
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			ended := make(chan error, 1)
			go func() { ended <- other.Serve(ln) }()
			t.Cleanup(func() { other.Stop(); must(t, <-ended) })

			client := p.dial([]string{ln.Addr().String()})
			for what, call := range map[string]func(context.Context) error{
				"ping": func(ctx context.Context) error { _, err := client.Ping(ctx); return err },
				"view": func(ctx context.Context) error { _, err := client.ClientView(ctx, 600_000_000, 0); return err },
				"command": func(ctx context.Context) error {
					_, err := client.Execute(ctx, domain.ClientCommand{ClientID: 600_000_000, List: &domain.MappingPage{}})
					return err
				},
			} {
				if err := call(t.Context()); domain.CodeOf(err) != domain.CodeOtherVersion || isUnavailable(err) {
					t.Errorf("%s: %v, want %s", what, err, domain.CodeOtherVersion)
				}
			}

			// Beside one of this version, that one is asked.
			if !checked {
				return
			}
			client = p.dial([]string{ln.Addr().String(), p.serve("").address})
			for range 20 {
				if _, err := client.Ping(t.Context()); err != nil {
					t.Fatalf("with one of each version: %v", err)
				}
			}
		})
	}
}

// TestACommandOfAnotherVersionIsRefused: an option that this control plane does not
// know is not left out of what it makes.
func TestACommandOfAnotherVersionIsRefused(t *testing.T) {
	p := newPlane(t)
	_, a, b := p.pair()
	client := p.dial([]string{p.serve("").address})
	command := domain.ClientCommand{ClientID: a, Key: "k", Create: create(a, b, 8000)}
	form, data, err := domain.EncodeExchanged(command)
	must(t, err)
	before, err := p.head(t.Context())
	must(t, err)
	for name, request := range map[string]*controlpb.ExecuteRequest{
		"another form":     {Form: int32(form) + 1, Command: data},
		"an unknown field": {Form: int32(form), Command: []byte(strings.Replace(string(data), `"create":{`, `"create":{"only_from":"192.0.2.0/24",`, 1))},
		"nothing":          {},
	} {
		_, err := client.state.Execute(t.Context(), request)
		if _, err = received(err); domain.CodeOf(err) != domain.CodeOtherVersion {
			t.Errorf("%s: %v, want %s", name, err, domain.CodeOtherVersion)
		}
	}
	if after, err := p.head(t.Context()); err != nil || after != before {
		t.Errorf("the log went from %d to %d, %v", before, after, err)
	}
}

// TestAClientDoesNotSayByWhoseRight: a command has fields that are the control
// plane's to set, and a forwarder that sets them changes nothing.
func TestAClientDoesNotSayByWhoseRight(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	stranger := p.user(domain.Limits{})
	client := p.dial([]string{p.serve("").address})
	wish := create(a, b, 8000)
	wish.ID, wish.UserID, wish.Any = 4_000_000, stranger, true
	made, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Create: wish})
	must(t, err)
	if m := made.Mappings[0].State; m.UserID != user || m.ID == wish.ID {
		t.Errorf("made %+v, whose user is %d", m, user)
	}

	target := p.client(stranger)
	random := strings.Repeat("A", domain.ShareCodeLength)
	p.submit(domain.CreateShare{ID: 7, UserID: stranger, Name: "db", Hash: domain.HashShareCode(7, random), TargetClientID: target,
		Protocol: domain.ProtocolTCP, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 5432}, MaxUses: 1})
	made, err = client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Redeem: &domain.Redemption{Code: domain.ShareCode(7, random),
		Mapping: domain.RedeemShare{ID: 8, MappingID: 4_000_001, RedeemerID: stranger, SourceClientID: b, At: time.Unix(1, 0), Origin: domain.Origin{LocalPort: 8001}}}})
	must(t, err)
	if m := made.Mappings[0].State; m.SourceClientID != a || m.SourceUserID != user || m.ID == 4_000_001 {
		t.Errorf("redeemed as %+v, asked by %d of %d", m, a, user)
	}
}
