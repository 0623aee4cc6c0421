package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// keptLogin has the tokens of a login. They are stored for later commands, so that
// users need not handle tokens.
type keptLogin struct {
	Username     string    `json:"username"`
	AccessToken  string    `json:"access_token"`
	AccessEnds   time.Time `json:"access_ends"`
	RefreshToken string    `json:"refresh_token"`
	RefreshEnds  time.Time `json:"refresh_ends"`

	Key string `json:"key,omitempty"` // an API key, in place of all tokens
}

// logins are stored in one file that only its owner can read, by the API's address.
type logins struct{ file string }

const (
	// early is how long before its end an access token is exchanged for another one, so
	// that a request under way still arrives in time.
	early = 30 * time.Second
	// loginsWait bounds how long another command of the same user may lock the file.
	loginsWait = 30 * time.Second
	loginsLook = 20 * time.Millisecond
)

// read gives all logins. There may be none.
func (l logins) read() (map[string]keptLogin, error) {
	all := map[string]keptLogin{}
	b, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read the logins in %s: %w; delete the file to log in again", l.file, err)
	}
	return all, nil
}

// change changes the file, under a lock. A refresh token is valid once: if two commands
// used the same one, the login would end.
func (l logins) change(ctx context.Context, do func(all map[string]keptLogin) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(l.file), 0o700); err != nil {
		return fmt.Errorf("store the login: %w", err)
	}
	lock, err := os.OpenFile(l.file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("store the login: %w", err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(ctx, loginsWait)
	defer cancel()
	tick := time.NewTicker(loginsLook)
	defer tick.Stop()
	for err = lockFile(lock); errors.Is(err, errHeld); err = lockFile(lock) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("store the login: another command has locked " + l.file)
		}
	}
	if err == nil { // a file system without locks must have only one command at a time
		defer func() { _ = unlockFile(lock) }()
	}
	all, err := l.read()
	if err != nil {
		return err
	}
	if err := do(all); err != nil {
		return err
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := keepFile(l.file, append(b, '\n')); err != nil {
		return fmt.Errorf("store the login: %w", err)
	}
	return nil
}

// use gives the client the stored access token for its server, or a new one when the
// old one expires soon. Without a login it does nothing.
func (l logins) use(ctx context.Context, c *restClient) error {
	all, err := l.read()
	if err != nil {
		return err
	}
	kept, ok := all[c.base]
	if !ok {
		return nil
	}
	if kept.Key != "" {
		c.key, c.keyFrom, c.kept, c.keptKey = kept.Key, "the stored key of "+kept.Username, true, true
		return nil
	}
	c.key, c.keyFrom, c.kept = kept.AccessToken, "the login of "+kept.Username, true
	if time.Until(kept.AccessEnds) > early {
		return nil
	}
	return l.change(ctx, func(all map[string]keptLogin) error {
		kept, ok := all[c.base]
		if ok && time.Until(kept.AccessEnds) <= early { // no other command was faster
			asking := *c
			asking.key = ""
			b, err := asking.call(ctx, http.MethodPost, "/api/v1/auth/refresh", map[string]any{"refresh_token": kept.RefreshToken})
			if coded, refused := errors.AsType[codedError](err); refused && coded.code == exitRefused {
				return codedError{exitRefused, fmt.Errorf("your login at %s has ended\n  log in again with tunnox login", c.base)}
			}
			if err != nil {
				return err
			}
			if kept, err = newLogin(kept.Username, b); err != nil {
				return err
			}
			all[c.base] = kept
		}
		c.key = kept.AccessToken
		return nil
	})
}

// newLogin reads the API's answer to a login or a refresh.
func newLogin(username string, answer []byte) (keptLogin, error) {
	var tokens struct {
		AccessToken      string `json:"access_token"`
		RefreshToken     string `json:"refresh_token"`
		ExpiresIn        int64  `json:"expires_in"`
		RefreshExpiresIn int64  `json:"refresh_expires_in"`
	}
	if err := json.Unmarshal(answer, &tokens); err != nil || tokens.AccessToken == "" {
		return keptLogin{}, fmt.Errorf("read the API's answer: %w", errors.Join(err, errors.New("it has no access token")))
	}
	ends := func(seconds int64) time.Time { return time.Now().Add(time.Duration(seconds) * time.Second).UTC() }
	return keptLogin{Username: username, AccessToken: tokens.AccessToken, AccessEnds: ends(tokens.ExpiresIn),
		RefreshToken: tokens.RefreshToken, RefreshEnds: ends(tokens.RefreshExpiresIn)}, nil
}
