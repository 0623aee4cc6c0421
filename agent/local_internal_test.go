package agent

import (
	"encoding/json"
	"testing"
)

// What a mapping of the local API has beside its own members are options, whatever
// they are called: the control plane says what there is.
func TestLocalMappingKeepsOptions(t *testing.T) {
	var m LocalMapping
	if err := json.Unmarshal([]byte(`{"name":"x","local_port":5,"idle_seconds":7,"other":{"a":1}}`), &m); err != nil {
		t.Fatal(err)
	}
	options, err := json.Marshal(m.Options)
	if err != nil || m.Name != "x" || m.LocalPort != 5 || string(options) != `{"idle_seconds":7,"other":{"a":1}}` {
		t.Errorf("read %+v with options %s, %v", m, options, err)
	}
	text, err := json.Marshal(m)
	var again map[string]any
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	if err != nil || again["idle_seconds"] != 7.0 || again["name"] != "x" || again["status"] != "" {
		t.Errorf("written as %s, %v", text, err)
	}
}
