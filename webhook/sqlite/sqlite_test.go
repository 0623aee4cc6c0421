package sqlite_test

import (
	"path/filepath"
	"testing"

	log "github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/sqlite"
	"github.com/tunnox-net/tunnox/webhook/webhooktest"
)

func open(t testing.TB) webhook.Store {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log.db")
	if _, err := log.Migrate(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close webhooks: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) { webhooktest.Run(t, open) }
