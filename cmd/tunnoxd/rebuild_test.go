package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/projections"
)

// What a check prints is sent to others. It names fields and shows no value.
func TestACheckShowsNoValues(t *testing.T) {
	var out, bar bytes.Buffer
	secrets := []string{"$argon2id$v=19$secret", "ann@example.org", "bob@example.org", "192.0.2.1"}
	c := projections.Checked{Rows: 5, Differences: []projections.Difference{
		{Name: "user-100000001", Live: `{"id":1,"email":"bob@example.org","password_hash":"x"}`, Want: `{"id":1,"email":"ann@example.org","password_hash":"$argon2id$v=19$secret"}`},
		{Name: "user-100000002", Want: `{"email":"ann@example.org"}`},
		{Name: "user-100000003", Live: `{"email":"ann@example.org"}`},
		{Name: "user-100000004", Live: `ann@example.org`, Want: `{"email":"ann@example.org"}`},
		{Name: "user-100000005", Live: `{"id":1,"192.0.2.1":1}`, Want: `{"id":1}`},
	}}
	if err := printChecked(&out, c, nil, newProgress(&bar, "checking")); !errors.Is(err, errDifferent) {
		t.Errorf("rows that differ give %v", err)
	}
	for _, s := range secrets {
		if strings.Contains(out.String(), s) {
			t.Errorf("it shows %s:\n%s", s, out.String())
		}
	}
	for _, want := range []string{"user-100000001: differs in email, password_hash\n", "user-100000002: is missing\n", "user-100000003: should not be there\n",
		"user-100000004: is not a row", "user-100000005: differs in a field that is not known\n", "5 differ\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
}
