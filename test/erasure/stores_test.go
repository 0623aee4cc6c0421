package erasure

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// tables gives all rows of all tables of the database as text.
func (f *form) tables() []byte {
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	db, err := pgx.Connect(ctx, f.postgres)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = db.Close(ctx) }()
	rows, err := db.Query(ctx, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		f.t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) < 15 {
		f.t.Fatalf("the tables are %v, %v", names, err)
	}
	var all bytes.Buffer
	for _, name := range names {
		rows, err := db.Query(ctx, "SELECT t::text FROM "+name+" t")
		if err != nil {
			f.t.Fatal(err)
		}
		texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			f.t.Fatal(err)
		}
		for _, text := range texts {
			fmt.Fprintf(&all, "%s %s\n", name, text)
		}
	}
	return all.Bytes()
}

// keys gives everything in Redis by its key.
func (f *form) keys() map[string][]byte {
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	options, err := redis.ParseURL(f.redis)
	if err != nil {
		f.t.Fatal(err)
	}
	c := redis.NewClient(options)
	defer func() { _ = c.Close() }()
	all := map[string][]byte{}
	for keys := c.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
		key := keys.Val()
		var value any
		switch kind := c.Type(ctx, key).Val(); kind {
		case "string":
			value = c.Get(ctx, key).Val()
		case "hash":
			value = c.HGetAll(ctx, key).Val()
		case "list":
			value = c.LRange(ctx, key, 0, -1).Val()
		case "set":
			value = c.SMembers(ctx, key).Val()
		case "zset":
			value = c.ZRangeWithScores(ctx, key, 0, -1).Val()
		case "stream":
			value = c.XRange(ctx, key, "-", "+").Val()
		case "none": // it has ended meanwhile
		default:
			f.t.Fatalf("the key %s is a %s", key, kind)
		}
		all[key] = append([]byte(key+" "), fmt.Appendf(nil, "%v", value)...)
	}
	if len(all) < 5 {
		f.t.Fatalf("Redis has the keys %v", all)
	}
	return all
}
