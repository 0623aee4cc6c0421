package domain

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// SocksAccess is what clients of a socks5 mapping prove themselves with, to the source
// agent. The log, and everybody who reads it, has the password as a hash.
type SocksAccess struct {
	Username string `json:"username,omitempty" maxLength:"255" doc:"What clients of the listener must give" example:"ann"`
	Password string `json:"password,omitempty" maxLength:"255" doc:"The same; kept as a hash and never shown. Left out in a change: as it was" example:"correct horse"`
}

// hashRounds makes guessing a password from its hash slow, and a client wait 2 ms.
const (
	hashScheme = "pbkdf2-sha256"
	hashRounds = 10_000
)

// check refuses half of what a client must give.
func (a *SocksAccess) check(f *faults) {
	if a != nil && (a.Username == "" || a.Password == "") {
		f.add("socks", "needs a username and a password, or must be left out")
	}
}

// kept is the access with the password that there was, where a change says nothing of it.
func (a *SocksAccess) kept(was *SocksAccess) *SocksAccess {
	if a == nil || was == nil || a.Password != "" || a.Username != was.Username {
		return a
	}
	return was
}

// hashed is the access with its password hashed. The salt is what it belongs to, which
// no other has: who decides has no dice. A password that is a hash stays as it is.
func (a *SocksAccess) hashed(salt StreamID) (*SocksAccess, error) {
	if a == nil || strings.HasPrefix(a.Password, hashScheme+"$") {
		return a, nil
	}
	text := string(salt)
	key, err := pbkdf2.Key(sha256.New, a.Password, []byte(text), hashRounds, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("hash a password: %w", err)
	}
	return &SocksAccess{Username: a.Username, Password: fmt.Sprintf("%s$%d$%s$%s", hashScheme, hashRounds, text, base64.RawStdEncoding.EncodeToString(key))}, nil
}

// Identified gives the options as they identify a request with an idempotency key, of
// which the log keeps a plain hash: with a password that is as slow to guess from that
// as from what is kept of it. One password is always the same under one key.
func (o Options) Identified(key string) (_ Options, err error) {
	if o.Socks != nil && o.Socks.Password != "" {
		o.Socks, err = o.Socks.hashed(StreamID(fmt.Sprintf("request-%x", sha256.Sum256([]byte(key)))))
	}
	return o, err
}

// Identified is the same for a change. A patch that cannot be read stays, for who decides
// to refuse it.
func (p Patch) Identified(key string) (Patch, error) {
	raw, ok := p.get("socks")
	if !ok {
		return p, nil
	}
	var change Options
	var f faults
	if f.patch(&change, Patch{"socks": raw}); len(f.list) > 0 || change.Socks == nil {
		return p, nil
	}
	change, err := change.Identified(key)
	next := Patch{}
	for name, value := range p {
		if !strings.EqualFold(name, "socks") {
			next[name] = value
		}
	}
	next["socks"] = PatchOf(change)["socks"]
	return next, err
}
