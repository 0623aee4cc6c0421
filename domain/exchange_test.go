package domain

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// fill gives every exported field of a value, however deep, something that is not
// zero, and no two fields the same.
func fill(v reflect.Value, next *int64) {
	*next++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(*next, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), next)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), next)
		}
	case reflect.String:
		v.SetString("text" + strings.Repeat("x", int(*next)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(uint64(*next % 251))
	case reflect.Int, reflect.Int64:
		v.SetInt(*next)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, next)
		fill(value, next)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		panic("fill knows no " + v.Type().String())
	}
}

func exchanged[T Exchanged](t *testing.T) {
	t.Helper()
	var want, none T
	var n int64
	fill(reflect.ValueOf(&want).Elem(), &n)
	form, data, err := EncodeExchanged(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeExchanged[T](form, data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%T became\n%+v, %v\nfrom\n%+v", want, got, err, want)
	}
	for name, sent := range map[string]struct {
		form int
		data string
	}{
		"a newer form":     {form + 1, string(data)},
		"no form":          {0, string(data)},
		"an unknown field": {form, strings.TrimSuffix(string(data), "}") + `,"only_from":"192.0.2.0/24"}`},
		"half of it":       {form, string(data[:len(data)/2])},
		"two of it":        {form, string(data) + string(data)},
		"null":             {form, "null"},
		"nothing":          {form, ""},
	} {
		got, err := DecodeExchanged[T](sent.form, []byte(sent.data))
		if CodeOf(err) != CodeOtherVersion {
			t.Errorf("%T, %s: %v, want %s", want, name, err, CodeOtherVersion)
		}
		if !reflect.DeepEqual(got, none) {
			t.Errorf("%T, %s: gave %+v beside the error", want, name, got)
		}
	}
}

// What control plane and forwarder exchange arrives with every field it has, or
// not at all.
func TestWhatIsExchangedArrivesWholeOrNotAtAll(t *testing.T) {
	exchanged[ClientView](t)
	exchanged[IngressView](t)
	exchanged[ClientCommand](t)
	exchanged[ClientResult](t)
}

// A member that is unknown deep inside a mapping is as good as one at the top: it
// may say what the mapping forbids.
func TestAnUnknownFieldOfAMappingIsNotPassedOver(t *testing.T) {
	form, data, err := EncodeExchanged(ClientView{Mappings: []Versioned[Mapping]{{State: Mapping{ID: 1001}}}})
	if err != nil {
		t.Fatal(err)
	}
	const before = `{"id":1001,`
	if !strings.Contains(string(data), before) {
		t.Fatalf("encoded as %s", data)
	}
	sent := strings.Replace(string(data), before, before+`"only_from":"192.0.2.0/24",`, 1)
	if v, err := DecodeExchanged[ClientView](form, []byte(sent)); CodeOf(err) != CodeOtherVersion || len(v.Mappings) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
