package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// localTunnel holds a tunnel for as long as the request lasts, and answers with one
// line of JSON for each thing that happens to it. A refusal is a problem, as for any
// other request.
func (a *Agent) localTunnel(w http.ResponseWriter, r *http.Request) {
	var wish Tunnel
	if !read(w, r, &wish) {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // a.ctx would do, but for a request that comes before Run
		select {
		case <-a.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	if !a.connected(ctx) {
		refuseLocal(w, http.StatusServiceUnavailable, "offline", "The agent is not connected to its server.")
		return
	}
	var writing sync.Mutex
	begun, over := false, false
	defer func() { // connections of the tunnel may fail after it
		writing.Lock()
		defer writing.Unlock()
		over = true
	}()
	tell := func(news TunnelNews) {
		writing.Lock()
		defer writing.Unlock()
		if over {
			return
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
		_ = json.NewEncoder(w).Encode(news) // who asked has gone, otherwise
		_ = http.NewResponseController(w).Flush()
	}
	t := a.tunnels.add(wish, tell)
	defer a.tunnels.drop(t)
	bounded, stop := context.WithTimeout(ctx, localTimeout)
	err := t.begin(bounded)
	stop()
	if err != nil {
		if !errors.Is(err, ErrNoResult) { // or something may have been made
			t.finish()
		}
		code, message := refusalOf(err)
		status := http.StatusConflict
		if code == "no_answer" {
			status = http.StatusServiceUnavailable
		}
		refuseLocal(w, status, code, message)
		return
	}
	t.inspect()
	defer func() { t.unwatch() }()
	tell(t.ready())
	t.follow(ctx)
}

// connected waits a while for a session.
func (a *Agent) connected(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	for {
		s, _, changed := a.sessions.pick(nil)
		if s != nil {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (a *Agent) localEndTunnel(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		refuseLocal(w, http.StatusUnprocessableEntity, "invalid", "The id is not a number.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := a.tunnels.end(ctx, id); err != nil {
		code, message := refusalOf(err)
		refuseLocal(w, http.StatusConflict, code, message)
		return
	}
	answerLocal(w, http.StatusOK, struct{}{})
}

// LocalClient is a client of the same user.
type LocalClient struct {
	ClientID int64  `json:"client_id"`
	Name     string `json:"client_name"`
	Disabled bool   `json:"disabled,omitempty"`
}

func (a *Agent) localClients(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64) // nonsense begins at the beginning
	limit, _ := strconv.ParseUint(r.URL.Query().Get("limit"), 10, 32)
	result := a.ask(w, r, &wirepb.Command{Command: &wirepb.Command_ListClients{ListClients: &wirepb.ListClients{
		Name: r.URL.Query().Get("name"), After: after, Limit: uint32(limit)}}})
	if result == nil {
		return
	}
	page := struct {
		Items []LocalClient `json:"items"`
		Next  *int64        `json:"next"`
	}{Items: []LocalClient{}}
	for _, c := range result.GetClients() {
		page.Items = append(page.Items, LocalClient{ClientID: c.GetClientId(), Name: c.GetName(), Disabled: c.GetDisabled()})
	}
	if result.GetNext() != 0 {
		page.Next = &result.Next
	}
	answerLocal(w, http.StatusOK, page)
}
