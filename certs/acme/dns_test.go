package acme

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
)

// The program gets what it is to do, and nothing of this server's settings; what it says
// when it fails is told.
func TestCommandForDNS(t *testing.T) {
	t.Setenv("TUNNOX_REDIS", "redis://secret@h")
	t.Setenv("TUNNOXD_API_KEY", "secret")
	t.Setenv("DNS_TOKEN", "its own")
	file := filepath.Join(t.TempDir(), "dns")
	must(t, os.WriteFile(file, []byte("#!/bin/sh\necho \"$# $1 $2 $3 $DNS_TOKEN\"\nenv\n[ \"$1\" = cleanup ]\n"), 0o700))
	c := &dnsCommand{program: file}
	challenge := acme.Challenge{Type: acme.ChallengeTypeDNS01, KeyAuthorization: "token.print",
		Identifier: acme.Identifier{Type: "dns", Value: "t.example.org"}}
	must(t, c.CleanUp(t.Context(), challenge))
	err := c.Present(t.Context(), challenge)
	if err == nil || !strings.Contains(err.Error(), "3 present _acme-challenge.t.example.org "+challenge.DNS01KeyAuthorization()+" its own") {
		t.Errorf("a program that fails: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the program has settings of the server: %v", err)
	}
}
