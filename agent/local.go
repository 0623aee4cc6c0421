package agent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// localTimeout bounds how long a request to [Agent.Local] may wait for a session
// and its answer.
const localTimeout = 30 * time.Second

// LocalMapping is a mapping that the agent is an end of, named as in the REST API.
type LocalMapping struct {
	MappingID      int64  `json:"mapping_id"`
	Name           string `json:"name"`
	Protocol       string `json:"protocol"`
	SourceClientID int64  `json:"source_client_id"` // to create: 0 = this agent's
	LocalHost      string `json:"local_host"`
	LocalPort      uint32 `json:"local_port"`
	TargetClientID int64  `json:"target_client_id"` // to create: 0 = this agent's
	TargetHost     string `json:"target_host"`
	TargetPort     uint32 `json:"target_port"`
	Target         string `json:"target,omitempty"` // unix:PATH or file:PATH, in place of host and port; to create: host:port too
	Status         string `json:"status"`
	// Options are the members of the object that are none of the above. What there is,
	// the control plane says.
	Options map[string]json.RawMessage `json:"-"`

	// Of answers only.
	PublicAddress string `json:"public_address,omitempty"` // where visitors connect
	ShareID       int64  `json:"share_id,omitempty"`
}

// localFields are the members of LocalMapping that are no options.
type localFields LocalMapping

// UnmarshalJSON implements [json.Unmarshaler].
func (m *LocalMapping) UnmarshalJSON(data []byte) error {
	var options map[string]json.RawMessage
	if err := json.Unmarshal(data, (*localFields)(m)); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &options); err != nil {
		return err
	}
	t := reflect.TypeFor[LocalMapping]()
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		delete(options, name)
	}
	m.Options = options
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (m LocalMapping) MarshalJSON() ([]byte, error) {
	data, err := json.Marshal(localFields(m))
	if err != nil || len(m.Options) == 0 {
		return data, err
	}
	all := maps.Clone(m.Options)
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// localRedemption is the body of POST /redeem.
type localRedemption struct {
	Code      string `json:"code"`
	Name      string `json:"name"`
	LocalHost string `json:"local_host"`
	LocalPort uint32 `json:"local_port"`
}

// Local is what the agent answers on its own machine, to whoever may act for it: how
// it is, and what its client may ask the control plane for. It authenticates nobody;
// serve it where only the agent's owner comes, such as a unix socket that only they
// can open. Its answers are those of the REST API in form.
func (a *Agent) Local() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answerLocal(w, http.StatusOK, a.Status()) })
	mux.HandleFunc("GET /mappings", a.localList)
	mux.HandleFunc("POST /mappings", a.localCreate)
	mux.HandleFunc("DELETE /mappings/{id}", a.localDelete)
	mux.HandleFunc("POST /redeem", a.localRedeem)
	mux.HandleFunc("POST /tunnels", a.localTunnel)
	mux.HandleFunc("GET /tunnels/{id}", a.localTraffic)
	mux.HandleFunc("DELETE /tunnels/{id}", a.localEndTunnel)
	mux.HandleFunc("GET /clients", a.localClients)
	mux.HandleFunc("GET /keys", a.localKeys)
	mux.HandleFunc("POST /keys/rotate", a.localRotateKey)
	return mux
}

func (a *Agent) localList(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64) // nonsense begins at the beginning
	limit, _ := strconv.ParseUint(r.URL.Query().Get("limit"), 10, 32)
	result := a.ask(w, r, &wirepb.Command{Command: &wirepb.Command_ListMappings{ListMappings: &wirepb.ListMappings{After: after, Limit: uint32(limit)}}})
	if result == nil {
		return
	}
	page := struct {
		Items []LocalMapping `json:"items"`
		Next  *int64         `json:"next"`
	}{Items: localMappings(result)}
	if result.GetNext() != 0 {
		page.Next = &result.Next
	}
	answerLocal(w, http.StatusOK, page)
}

func (a *Agent) localCreate(w http.ResponseWriter, r *http.Request) {
	var m LocalMapping
	if !read(w, r, &m) {
		return
	}
	id, ok := a.registered(r.Context())
	if !ok {
		refuseLocal(w, http.StatusServiceUnavailable, "offline", "The agent is not connected.")
		return
	}
	var options []byte
	if len(m.Options) > 0 {
		options, _ = json.Marshal(m.Options) // of what was JSON a moment ago
	}
	if m.SourceClientID == 0 {
		m.SourceClientID = id
	}
	if m.TargetClientID == 0 {
		m.TargetClientID = id
	}
	var parts []byte
	if m.Target != "" {
		parts, _ = json.Marshal(map[string]string{"target": m.Target}) // a text can be written
	}
	a.answerMapping(w, r, http.StatusCreated, &wirepb.Command{Command: &wirepb.Command_CreateMapping{CreateMapping: &wirepb.CreateMapping{
		SourceClientId: m.SourceClientID, TargetClientId: m.TargetClientID, Protocol: m.Protocol, Name: m.Name,
		LocalHost: m.LocalHost, LocalPort: m.LocalPort, TargetHost: m.TargetHost, TargetPort: m.TargetPort, Options: string(options), Parts: parts}}})
}

func (a *Agent) localRedeem(w http.ResponseWriter, r *http.Request) {
	var in localRedemption
	if read(w, r, &in) {
		a.answerMapping(w, r, http.StatusCreated, &wirepb.Command{Command: &wirepb.Command_RedeemShare{RedeemShare: &wirepb.RedeemShare{
			Code: in.Code, Name: in.Name, LocalHost: in.LocalHost, LocalPort: in.LocalPort}}})
	}
}

func (a *Agent) localDelete(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		refuseLocal(w, http.StatusUnprocessableEntity, "invalid", "The id is not a number.")
		return
	}
	a.answerMapping(w, r, http.StatusOK, &wirepb.Command{Command: &wirepb.Command_DeleteMapping{DeleteMapping: &wirepb.DeleteMapping{MappingId: id}}})
}

// registered gives the agent's client id, and waits a while for it to have one.
func (a *Agent) registered(ctx context.Context) (id int64, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	return a.registeredFor(ctx)
}

// registeredFor is registered for as long as ctx lasts.
func (a *Agent) registeredFor(ctx context.Context) (id int64, ok bool) {
	for {
		_, _, changed := a.sessions.pick(nil)
		if id := a.identityID(); id != 0 {
			return id, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// answerMapping asks for something that comes to one mapping.
func (a *Agent) answerMapping(w http.ResponseWriter, r *http.Request, status int, c *wirepb.Command) {
	result := a.ask(w, r, c)
	switch mappings := localMappings(result); {
	case result == nil:
	case len(mappings) == 1:
		answerLocal(w, status, mappings[0])
	default:
		answerLocal(w, status, struct{}{})
	}
}

// ask asks the control plane; a refusal, or that nobody answered, is answered here,
// and the result is nil then.
func (a *Agent) ask(w http.ResponseWriter, r *http.Request, c *wirepb.Command) *wirepb.Result {
	ctx, cancel := context.WithTimeout(r.Context(), localTimeout)
	defer cancel()
	result, err := a.Do(ctx, c)
	switch {
	case errors.Is(err, ErrNoResult) && !a.Status().Online:
		refuseLocal(w, http.StatusServiceUnavailable, "offline", "The agent is not connected: see its log. Nothing was done.")
	case err != nil:
		refuseLocal(w, http.StatusServiceUnavailable, "no_answer", "The server did not answer. The command may be done: list the mappings.")
	case result.GetCode() != "":
		refuseLocal(w, http.StatusConflict, result.GetCode(), result.GetMessage())
	default:
		return result
	}
	return nil
}

func localMappings(result *wirepb.Result) []LocalMapping {
	mappings := []LocalMapping{}
	for _, m := range result.GetMappings() {
		mappings = append(mappings, localMapping(m))
	}
	return mappings
}

// localOptions reads options as a forwarder sends them. What cannot be read is not
// shown: it is the forwarder's fault, and the mapping is there all the same.
func localOptions(text string) (options map[string]json.RawMessage) {
	if text != "" && json.Unmarshal([]byte(text), &options) != nil {
		return nil
	}
	return options
}

func localMapping(m *wirepb.Mapping) LocalMapping {
	status := "active"
	if m.GetDisabled() {
		status = "disabled"
	}
	var parts struct {
		Target string `json:"target"`
	}
	if json.Unmarshal(m.GetParts(), &parts) != nil {
		parts.Target = "" // an older forwarder sends none
	}
	return LocalMapping{Target: parts.Target, MappingID: m.GetMappingId(), Name: m.GetName(), Protocol: m.GetProtocol(),
		SourceClientID: m.GetSourceClientId(), LocalHost: m.GetLocalHost(), LocalPort: m.GetLocalPort(),
		TargetClientID: m.GetTargetClientId(), TargetHost: m.GetTargetHost(), TargetPort: m.GetTargetPort(), Status: status,
		Options: localOptions(m.GetOptions()), PublicAddress: m.GetPublic(), ShareID: m.GetShareId()}
}

// read reads a body, or answers that it cannot.
func read(w http.ResponseWriter, r *http.Request, body any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(body)
	if err != nil {
		refuseLocal(w, http.StatusBadRequest, "invalid", "The body is not valid: "+err.Error())
	}
	return err == nil
}

func answerLocal(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who asked has gone, otherwise
}

// refuseLocal answers with a problem (RFC 9457), as the REST API does.
func refuseLocal(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status), "detail": detail, "code": code})
}
