package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// streamGoesOn: a reader follows the log at one control plane, loses it, and continues
// at another one after the last id that it has read. It sees every event once and in
// order, while commands go on.
func streamGoesOn(t *testing.T, f *form) {
	const commands = 60
	m := maker{t, f}
	user := m.user()
	start := fmt.Sprint(f.head(t))
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range commands {
			if i == commands/2 && f.lose != nil {
				f.lose()
			}
			answer, err := f.other.Call("PUT", base+path("/users/%d", user), fields{"username": fmt.Sprintf("s%d-%d", user, i)})
			if err != nil || answer.Status != http.StatusOK {
				t.Errorf("command %d: %d %s, %v", i, answer.Status, answer.Body, err)
			}
		}
	})
	defer writing.Wait()

	var seen []int64
	last := start
	// read follows the stream at a control plane until it has seen this number of
	// events in all, or the stream ends.
	read := func(api *programs.API, all int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		body, err := follow(ctx, api, last)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		lines := bufio.NewScanner(body)
		for len(seen) < all && lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				last = id
			} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var event struct {
					Position int64
					Stream   string
				}
				if err := json.Unmarshal([]byte(data), &event); err != nil {
					return err
				}
				if event.Stream == path("user-%d", user) {
					seen = append(seen, event.Position)
				}
			}
		}
		return lines.Err()
	}
	if f.lose == nil {
		if err := read(f.first, commands/2); err != nil {
			t.Fatal(err)
		}
	} else if err := read(f.first, commands); err == nil || len(seen) == commands {
		t.Errorf("a control plane that was killed showed %d events, %v", len(seen), err)
	}
	before := len(seen)
	if err := read(f.other, commands); err != nil {
		t.Fatal(err)
	}
	writing.Wait()
	t.Logf("%d events, %d of them before", len(seen), before)
	var want []int64
	for _, e := range programs.All[struct {
		Position int64
		Name     string
	}](t, f.other, base+path("/users/%d/history?limit=500", user)) {
		if e.Name == "user_changed" {
			want = append(want, e.Position)
		}
	}
	if !slices.Equal(seen, want) {
		t.Errorf("the stream showed %d events %v, the history has %d %v", len(seen), seen, len(want), want)
	}
}

// follow opens the live stream after a position.
func follow(ctx context.Context, api *programs.API, last string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api.URL+base+"/events/stream", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+api.Key)
	req.Header.Set("Last-Event-ID", last)
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the stream is answered %s", resp.Status)
	}
	return resp.Body, nil
}
