package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	directorymemory "github.com/tunnox-net/tunnox/directory/memory"
	"github.com/tunnox-net/tunnox/wholefile"
)

// lastSeenEvery is how often the times are stored. A killed process loses at most this
// much.
const lastSeenEvery = time.Minute

// keepLastSeen stores the times when clients were last seen in a file of the data
// directory, for the next start. In a cluster Redis has these times.
func (p *process) keepLastSeen(d *directorymemory.Directory) {
	path := p.dir.file("last-seen.json")
	kept, err := readLastSeen(path)
	if err != nil {
		p.log.Warn("the times when clients were last seen are lost", "error", err)
	}
	d.Recall(kept)
	p.run("last seen", func(ctx context.Context) error {
		tick := time.NewTicker(lastSeenEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done(): // the last sessions have ended now
			}
			seen := d.Seen()
			if maps.EqualFunc(seen, kept, time.Time.Equal) {
				continue
			}
			if err := writeLastSeen(path, seen); err != nil {
				p.log.Warn("cannot store the times when clients were last seen", "error", err)
				continue
			}
			kept = seen
		}
		return nil
	})
}

func readLastSeen(path string) (map[int64]time.Time, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	millis := map[int64]int64{}
	if err == nil {
		err = json.Unmarshal(b, &millis)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	seen := make(map[int64]time.Time, len(millis))
	for id, at := range millis {
		seen[id] = time.UnixMilli(at).UTC()
	}
	return seen, nil
}

func writeLastSeen(path string, seen map[int64]time.Time) error {
	millis := make(map[int64]int64, len(seen))
	for id, at := range seen {
		millis[id] = at.UnixMilli()
	}
	b, err := json.Marshal(millis)
	if err != nil {
		return err
	}
	return wholefile.Write(path, append(b, '\n'), 0o600)
}
