package httpapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// TestErasure deletes with the event that has the store forget; of a user who
// was deleted before, only the key goes.
func TestErasure(t *testing.T) {
	eraser := &erasures{}
	w := newWorld(t, func(c *httpapi.Config) { c.Eraser = eraser })
	made := w.do("POST", "/api/v1/users", map[string]any{"username": "ann", "email": "ann@example.org"}).want(201)
	id := int64(made.Body["user_id"].(float64))
	path := fmt.Sprintf("/api/v1/users/%d", id)
	w.do("POST", path+"/erase", nil)
	w.do("GET", path, nil).want(404)
	if history := w.do("GET", path+"/history", nil).want(200); !strings.Contains(history.Text, `"user_erased"`) {
		t.Errorf("the history is %s", history.Text)
	}
	if len(eraser.accounts) > 0 {
		t.Errorf("erased %v beside the event", eraser.accounts)
	}
	if again := w.do("POST", path+"/erase", nil); again.Status >= 300 || !slices.Equal(eraser.accounts, []int64{id}) {
		t.Errorf("a second time: %d, erased %v", again.Status, eraser.accounts)
	}
	w.do("POST", "/api/v1/users/100009999/erase", nil).want(404)
}
