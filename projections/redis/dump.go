package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/projections"
)

// dumpPage is how many entries are read at a time, so that nobody waits for a
// dump.
const dumpPage = 500

// Dump implements [projections.Dumper].
func (s *Store) Dump(ctx context.Context) (projections.Dump, error) {
	d := projections.Dump{Rows: map[projections.Key][]byte{}, Members: map[projections.Member]struct{}{}}
	version, err := s.client.Get(ctx, s.tag+":active").Result()
	if errors.Is(err, goredis.Nil) {
		return d, errNone
	}
	if err != nil {
		return d, unavailable("find the version that is read", err)
	}
	prefix := s.tag + ":" + version + ":"
	for cursor := uint64(0); ; {
		keys, next, err := s.client.Scan(ctx, cursor, prefix+"*", dumpPage).Result()
		if err != nil {
			return d, unavailable("dump the read models", err)
		}
		for _, key := range keys {
			name := strings.TrimPrefix(key, prefix)
			if index, ok := strings.CutPrefix(name, "index:"); ok {
				err = s.dumpIndex(ctx, key, index, d.Members)
			} else if name != "meta" && name != "full" {
				err = s.dumpRows(ctx, version, projections.Kind(name), d.Rows)
			}
			if err != nil {
				return d, err
			}
		}
		if cursor = next; cursor == 0 {
			return d, nil
		}
	}
}

// Spelt implements [projections.Dumper].
func (s *Store) Spelt(index string) string { return s.indexKey(index) }

func (s *Store) dumpRows(ctx context.Context, version string, kind projections.Kind, into map[projections.Key][]byte) error {
	key := s.tag + ":" + version + ":" + string(kind)
	for cursor := uint64(0); ; {
		pairs, next, err := s.client.HScan(ctx, key, cursor, "*", dumpPage).Result()
		if err != nil {
			return unavailable("dump rows", err)
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			id, err := strconv.ParseInt(pairs[i], 10, 64)
			if err != nil {
				return fmt.Errorf("read model %s has the row %q", kind, pairs[i])
			}
			row := projections.Key{Kind: kind, ID: id}
			if into[row], err = s.value(ctx, version, row, []byte(pairs[i+1])); err != nil {
				// What is no row of ours is shown as it is, for who compares.
				into[row] = []byte("somebody else's")
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (s *Store) dumpIndex(ctx context.Context, key, index string, into map[projections.Member]struct{}) error {
	for cursor := uint64(0); ; {
		pairs, next, err := s.client.ZScan(ctx, key, cursor, "*", dumpPage).Result()
		if err != nil {
			return unavailable("dump a list", err)
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			id, err := strconv.ParseInt(pairs[i], 10, 64)
			if err != nil {
				return fmt.Errorf("read model index %s has %q", index, pairs[i])
			}
			into[projections.Member{Index: index, ID: id}] = struct{}{}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
