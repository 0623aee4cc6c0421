package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/tunnox-net/tunnox/test/apiclient"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

// form is one of the two forms, running.
type form struct {
	doc    *document
	server *programs.Server // where agents connect
	first  *programs.API    // a control plane
	other  *programs.API    // the cluster's other one, or the same
	names  atomic.Int64     // that were given
	codes  chan string      // claim codes of anonymous clients
	dns    *services.DNS    // that is asked for the proofs of domains
	// lose ends the first control plane as kill -9 does; nil if it is the only one.
	lose func()
}

// TestBothForms starts both forms once for all parts of this package. A part leaves
// nothing behind that disturbs the next one; the last part ends a control plane.
func TestBothForms(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *form{"embedded": embedded, "cluster": cluster} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			f.registerAnonymous(t, 3)
			t.Run("every operation succeeds and says what is true", func(t *testing.T) { everyOperation(t, f) })
			t.Run("a dry run writes nothing and says what is written then", func(t *testing.T) { dryRuns(t, f) })
			t.Run("a repeat under a key is harmless", func(t *testing.T) { repeats(t, f) })
			t.Run("repeats at the same moment have one effect", func(t *testing.T) { atOnce(t, f) })
			t.Run("what stands on an old version is refused", func(t *testing.T) { versions(t, f) })
			t.Run("pages are whole while things come and go", func(t *testing.T) { pagesAreWhole(t, f) })
			t.Run("pages have bounds", func(t *testing.T) { pagesHaveBounds(t, f) })
			t.Run("the past is answered as it was", func(t *testing.T) { thePast(t, f) })
			t.Run("a stream goes on at another control plane", func(t *testing.T) { streamGoesOn(t, f) })
		})
	}
}

func embedded(t *testing.T) *form {
	dns := services.StartDNS(t)
	s := programs.Serve(t, "--resolver", dns.Addr)
	return &form{doc: readDocument(t), server: s, first: s.API, other: s.API, dns: dns}
}

func cluster(t *testing.T) *form {
	// Two forwarders: a story drains one, and invited machines need another one.
	dns := services.StartDNS(t)
	c := programs.StartClusterWith(t, 2, services.Postgres(t), services.Redis(t), []string{"--resolver", dns.Addr})
	second := programs.StartControlBeside(t, "127.0.0.20", c.Control)
	return &form{doc: readDocument(t), server: c.Server(), first: c.Control.API, other: second.API, lose: c.Control.Kill, dns: dns}
}

// client is the generated client of a control plane, with a token. It records in done
// every operation that succeeds.
func client(t *testing.T, api *programs.API, token string, done *calls) *apiclient.ClientWithResponses {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := apiclient.NewClientWithResponses(api.URL, apiclient.WithHTTPClient(&noting{http.Client{Transport: transport}, done}),
		apiclient.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noting is a client that records the operations that succeed.
type noting struct {
	http.Client
	done *calls
}

func (n *noting) Do(r *http.Request) (*http.Response, error) {
	resp, err := n.Client.Do(r)
	if err == nil && resp.StatusCode/100 == 2 {
		n.done.note(r)
	}
	return resp, err
}

// outcome is the result of a method of the generated client.
type outcome[R interface{ StatusCode() int }] struct {
	answer R
	err    error
}

func call[R interface{ StatusCode() int }](answer R, err error) outcome[R] {
	return outcome[R]{answer, err}
}

// want gives the answer, which must have this status.
func (o outcome[R]) want(t *testing.T, status int) R {
	t.Helper()
	if o.err != nil {
		t.Fatal(o.err)
	}
	if got := o.answer.StatusCode(); got != status {
		t.Fatalf("status %d, want %d: %.500s", got, status, reflect.ValueOf(o.answer).Elem().FieldByName("Body").Bytes())
	}
	return o.answer
}

// is fails the test when two values differ.
func is[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %s, want %s", what, brief(got), brief(want))
	}
}

// brief gives the beginning of a value, for people.
func brief(v any) string { return fmt.Sprintf("%.600s", fmt.Sprintf("%+v", v)) }
