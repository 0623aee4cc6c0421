package eventstore

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// replaceStrings replaces those that are texts.
func replaceStrings(data []byte, fields []string, by func(field, value string) string) ([]byte, error) {
	return replaceFields(data, fields, func(field string, value []byte) ([]byte, error) {
		if value[0] != '"' {
			return nil, nil
		}
		text, err := stringOf(value)
		if err != nil {
			return nil, err
		}
		return quoted(by(field, text))
	})
}

func TestReplaceFields(t *testing.T) {
	got, err := replaceFields([]byte(`{"a" : {"x":[1,"}"]} , "b":[] ,"c":null,"d":2 }`), []string{"a", "b", "c", "d"}, func(field string, value []byte) ([]byte, error) {
		return []byte(`"` + field + strconv.Itoa(len(value)) + `"`), nil
	})
	if want := `{"a" : "a13", "b":"b2","c":"c4","d":"d1"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestReplaceStrings(t *testing.T) {
	shout := func(_, value string) string { return strings.ToUpper(value) }
	for _, test := range []struct{ data, want string }{
		{`{}`, `{}`},
		{`{"a":"x"}`, `{"a":"X"}`},
		{` { "a" : "x" , "n":[1,{"a":"x"},"a"] , "b" : "y" } `, ` { "a" : "X" , "n":[1,{"a":"x"},"a"] , "b" : "Y" } `},
		{`{"a":{"a":"x"},"b":["y"],"c":"z"}`, `{"a":{"a":"x"},"b":["y"],"c":"z"}`},
		{`{"a":null,"b":12,"n":-1.5e3,"t":true,"b":"y"}`, `{"a":null,"b":12,"n":-1.5e3,"t":true,"b":"Y"}`},
		{`{"n":"}{\\\"","a":"q\"\\\u00e9","b":"<"}`, `{"n":"}{\\\"","a":"Q\"\\É","b":"\u003c"}`},
		{`{"\u0061":"x"}`, `{"\u0061":"X"}`},
		{`{"a":"ü\n"}`, `{"a":"Ü\n"}`},
	} {
		got, err := replaceStrings([]byte(test.data), []string{"a", "b"}, shout)
		if err != nil || string(got) != test.want {
			t.Errorf("%s becomes %s, %v, want %s", test.data, got, err, test.want)
		}
	}
	for _, data := range []string{``, `null`, `[]`, `"a"`, `{`, `{"a"`, `{"a":`, `{"a":"x`, `{"a":"x"`, `{"a" "x"}`, `{"a":"x"]`, `{"a":}`, `{"a":"\x"}`, `{"a":[}`} {
		if got, err := replaceStrings([]byte(data), []string{"a"}, shout); err == nil {
			t.Errorf("%q becomes %q", data, got)
		}
	}
}

// FuzzReplaceStrings compares with the result of encoding/json for the same object.
func FuzzReplaceStrings(f *testing.F) {
	for _, seed := range []string{`{"a":"x","b":[1,2,{"a":"}"}],"c":"y\u0000"}`, `{"\u0061":"\\","a":"\ud800"}`, `{ "b" : "<>&" }`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after map[string]any
		if json.Unmarshal(data, &before) != nil || before == nil {
			return
		}
		seen := map[string]string{}
		got, err := replaceStrings(data, []string{"a", "b"}, func(field, value string) string {
			seen[field] = value
			return "was " + value
		})
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s becomes %s: %v", data, got, err)
		}
		for _, field := range []string{"a", "b"} {
			if value, ok := before[field].(string); ok {
				if seen[field] != value {
					t.Errorf("%s: %s is %q, seen was %q", data, field, value, seen[field])
				}
				before[field] = "was " + value
			}
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s becomes %s", data, got)
		}
	})
}
