package services_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/test/services"
)

func query(t *testing.T, url, statement string) (n int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	return n, conn.QueryRow(ctx, statement).Scan(&n)
}

func TestPostgresGivesEachTestItsOwnDatabase(t *testing.T) {
	a, b := services.Postgres(t), services.Postgres(t)
	if a == b {
		t.Fatalf("two tests would share %s", a)
	}
	if _, err := query(t, a, "CREATE TABLE seen (n int)"); err != pgx.ErrNoRows {
		t.Fatal(err)
	}
	if _, err := query(t, b, "SELECT n FROM seen"); err == nil || err == pgx.ErrNoRows {
		t.Fatalf("a table of one database is visible in the other: %v", err)
	}
}

func TestPostgresKeepsDataOverKill(t *testing.T) {
	s := services.StartPostgres(t, services.PostgresOptions{Durable: true, TCP: true})
	url := s.Database(t)
	if _, err := query(t, url, "CREATE TABLE kept AS SELECT 42 AS n"); err != pgx.ErrNoRows {
		t.Fatal(err)
	}
	s.Kill(t)
	if _, err := query(t, url, "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Start(t)
	if n, err := query(t, url, "SELECT n FROM kept"); err != nil || n != 42 {
		t.Fatalf("after kill and start: %d, %v; want 42", n, err)
	}
	s.Stop(t)
}
