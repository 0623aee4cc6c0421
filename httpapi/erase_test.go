package httpapi_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/httpapi"
)

// erasures is an eraser that remembers.
type erasures struct {
	mu       sync.Mutex
	accounts []int64 // guarded by mu
}

func (e *erasures) Erase(_ context.Context, account int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accounts = append(e.accounts, account)
	return nil
}

// TestErasure tells of every erasure by the event that has the store forget, also of
// a user who was deleted before. A repeat forgets once more, and writes nothing.
func TestErasure(t *testing.T) {
	eraser := &erasures{}
	w := newWorld(t, func(c *httpapi.Config) { c.Eraser = eraser })
	erased := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range w.do("GET", "/api/v1/audit?type=user_erased", nil).want(200).Body["items"].([]any) {
			e := e.(map[string]any)
			got = append(got, fmt.Sprint(e["stream"], " by ", e["meta"].(map[string]any)["actor"]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("the audit tells of the erasures %q, want %q", got, want)
		}
	}
	ann, bob := w.user("ann"), w.user("bob")
	path := "/api/v1/users/" + formatID(ann)
	w.do("POST", path+"/erase?dry_run=true", nil).want(200)
	if len(eraser.accounts) != 0 {
		t.Fatalf("a dry run erased %v", eraser.accounts)
	}
	w.do("POST", path+"/erase", nil).want(204)
	w.do("GET", path, nil).want(404)
	erased("erasure-" + formatID(ann) + " by key:admin")
	w.do("POST", path+"/erase", nil).want(204)

	w.do("DELETE", "/api/v1/users/"+formatID(bob), nil).want(204)
	for range 2 {
		w.do("POST", "/api/v1/users/"+formatID(bob)+"/erase", nil).want(204)
		erased("erasure-"+formatID(ann)+" by key:admin", "erasure-"+formatID(bob)+" by key:admin")
	}
	if want := []int64{ann, ann, bob, bob}; !slices.Equal(eraser.accounts, want) {
		t.Errorf("forgot %v, want %v", eraser.accounts, want)
	}
	w.do("POST", "/api/v1/users/100009999/erase", nil).want(404)
}
