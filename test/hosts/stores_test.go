package hosts

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// notInRedis fails when a text stands in a value of a Redis.
func notInRedis(t *testing.T, url, text string) {
	t.Helper()
	ctx := context.Background()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	keys, err := client.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	values := 0
	for _, key := range keys {
		var value any
		switch kind := client.Type(ctx, key).Val(); kind {
		case "string":
			value = client.Get(ctx, key).Val()
		case "hash":
			value = client.HGetAll(ctx, key).Val()
		case "stream":
			value = client.XRange(ctx, key, "-", "+").Val()
		case "set":
			value = client.SMembers(ctx, key).Val()
		case "zset":
			value = client.ZRange(ctx, key, 0, -1).Val()
		case "list":
			value = client.LRange(ctx, key, 0, -1).Val()
		case "none": // it has expired
			continue
		default:
			t.Fatalf("%s is a %s, which this test cannot read", key, kind)
		}
		values++
		if strings.Contains(fmt.Sprint(value), text) {
			t.Errorf("Redis has %q under %s", text, key)
		}
	}
	if values < 5 {
		t.Errorf("Redis has %d values; this test looks in the wrong place", values)
	}
}

// notInPostgres fails when a text stands in a row of a Postgres.
func notInPostgres(t *testing.T, url, text string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, table := range tables {
		rows, err := conn.Query(ctx, "SELECT t::text FROM "+table+" t") // bytes are hexadecimal there
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		seen += len(lines)
		for _, line := range lines {
			if strings.Contains(line, text) || bytes.Contains([]byte(line), []byte(hex.EncodeToString([]byte(text)))) {
				t.Errorf("Postgres has %q in a row of %s", text, table)
			}
		}
	}
	if seen < 10 {
		t.Errorf("Postgres has %d rows; this test looks in the wrong place", seen)
	}
}
