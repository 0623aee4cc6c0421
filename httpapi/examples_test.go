package httpapi_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// An example that is of another status is worse than none.
func TestEveryErrorHasAnExampleOfItsOwn(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			ID        string `json:"operationId"`
			Responses map[string]struct {
				Content map[string]struct {
					Example struct {
						Title, Code, Instance string
						Status                int
						Errors                []struct{ Location string }
					}
				}
			}
		}
		Components struct {
			Schemas map[string]struct{ Properties map[string]json.RawMessage }
		}
	}
	text := newWorld(t).do("GET", "/openapi.json", nil).want(200).Text
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	places, examples := map[string]bool{}, 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			for status, response := range op.Responses {
				if status == "default" {
					continue
				}
				media, ok := response.Content["application/problem+json"]
				if !ok {
					continue
				}
				examples++
				e := media.Example
				if strconv.Itoa(e.Status) != status || e.Title == "" || e.Code == "" || strings.ContainsAny(e.Instance, "{}") {
					t.Errorf("%s %s (%s): the example of %s is %+v", method, path, op.ID, status, e)
				}
				if status == "422" && (len(e.Errors) != 1 || method == "get" && strings.HasPrefix(e.Errors[0].Location, "body")) {
					t.Errorf("%s %s: the example of 422 is %+v", method, path, e)
				}
				for _, f := range e.Errors {
					places[f.Location] = true
				}
			}
		}
	}
	if examples < 300 || len(places) < 15 {
		t.Errorf("%d examples with %d places: %v", examples, len(places), places)
	}
	events := string(doc.Components.Schemas["CreateWebhookBody"].Properties["events"])
	for _, name := range domain.EventNames() {
		if !strings.Contains(events, name) {
			t.Errorf("the document does not say that a webhook can be told of %s", name)
		}
	}
}
