package postgres_test

import (
	"context"
	"testing"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func open(t testing.TB) eventstore.Store {
	t.Helper()
	return openURL(t, services.Postgres(t))
}

func openURL(t testing.TB, url string) *postgres.Store {
	t.Helper()
	if _, err := postgres.Migrate(context.Background(), url); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(context.Background(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the log: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) { eventstoretest.Run(t, open) }
