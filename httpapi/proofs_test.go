package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

// signer answers as an auditor of a log with 20 records does.
type signer struct{ err error }

func (s signer) Checkpoint(context.Context) (httpapi.Checkpoint, error) {
	return httpapi.Checkpoint{Log: "log", Size: 20, RootHash: make([]byte, 32), SignedAt: time.Unix(1, 0), Checkpoint: "note", VerifierKey: "key"}, s.err
}

func (s signer) Inclusion(_ context.Context, p domain.Position, size int64) (httpapi.InclusionProof, error) {
	if s.err == nil && (p > 20 || size > 20) {
		return httpapi.InclusionProof{}, fmt.Errorf("%w: too far", httpapi.ErrNoProof)
	}
	return httpapi.InclusionProof{Position: p, Size: 20, LeafHash: make([]byte, 32), RootHash: make([]byte, 32), Hashes: [][]byte{}}, s.err
}

func (s signer) Consistency(_ context.Context, from, to int64) (httpapi.ConsistencyProof, error) {
	return httpapi.ConsistencyProof{From: from, To: to, FromRoot: make([]byte, 32), ToRoot: make([]byte, 32), Hashes: [][]byte{}}, s.err
}

func TestProofRoutes(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) { c.Auditor = signer{} })
	if got := w.do("GET", "/api/v1/audit/checkpoint", nil).want(200); got.Body["size"] != 20.0 || got.Body["verifier_key"] != "key" {
		t.Errorf("the checkpoint is %v", got.Body)
	}
	w.do("GET", "/api/v1/audit/proof/inclusion?position=7", nil).want(200)
	w.do("GET", "/api/v1/audit/proof/consistency?from=3&to=9", nil).want(200)
	for _, path := range []string{"/api/v1/audit/proof/inclusion", "/api/v1/audit/proof/inclusion?position=0", "/api/v1/audit/proof/consistency?from=x"} {
		w.do("GET", path, nil).want(422)
	}
	for path, w := range map[string]*world{
		"/api/v1/audit/proof/inclusion?position=21": w,
		"/api/v1/audit/checkpoint":                  newWorld(t), // nobody signs
	} {
		if got := w.do("GET", path, nil).want(404); got.Body["code"] != "no_proof" {
			t.Errorf("%s: %v", path, got.Body)
		}
	}
}

// TestAnAlarmIsShownAndServesOn: the log is not what was signed, which people
// must see, and which is no reason to stop working.
func TestAnAlarmIsShownAndServesOn(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) {
		c.Auditor = signer{err: fmt.Errorf("%w: record 7", httpapi.ErrAlarm)}
		c.Alarms = map[string]func(context.Context) error{"audit": func(context.Context) error { return errors.New("record 7 was changed") }}
	})
	if got := w.do("GET", "/api/v1/audit/checkpoint", nil).want(503); got.Body["code"] != "audit_alarm" {
		t.Errorf("the checkpoint is %v", got.Body)
	}
	got := w.send(w.request("GET", "/ready", nil)).want(200)
	if got.Body["status"] != "ready" || got.Body["checks"].(map[string]any)["audit"] != "alarm" {
		t.Errorf("ready says %v", got.Body)
	}
}
