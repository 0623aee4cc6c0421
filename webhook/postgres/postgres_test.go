package postgres_test

import (
	"context"
	"testing"

	log "github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/postgres"
	"github.com/tunnox-net/tunnox/webhook/webhooktest"
)

func TestMain(m *testing.M) { services.Main(m) }

func open(t testing.TB) webhook.Store {
	t.Helper()
	url := services.Postgres(t)
	if _, err := log.Migrate(context.Background(), url); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(context.Background(), url)
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
