package main

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
)

// defaultAPI is where the API of a server on this machine is.
const defaultAPI = "http://127.0.0.1:9000"

// destination is where requests of the REST API go.
type destination struct {
	base  string // URL, without a slash at the end
	place place  // of the login
	// environ says that TUNNOX_API_KEY may be sent there.
	environ bool
}

// destination finds where requests go, and which key may go there. A key has no name of
// its server in it. So a key that somebody gave goes only to an address that was given
// beside it, or to the usual one of this machine: never to the server of a context that
// happens to be chosen.
func (f *apiFlags) destination() (to destination, err error) {
	given, environ, key := f.url, f.variable("TUNNOX_API"), f.variable("TUNNOX_API_KEY") != ""
	if environ != "" {
		if environ, err = apiBase(environ); err != nil {
			return to, err
		}
	}
	if given != "" {
		if to.base, err = apiBase(given); err != nil {
			return to, err
		}
		to.environ = environ == "" || environ == to.base
		to.place, err = f.place(f.state)
		return to, err
	}
	if to.place, err = f.place(f.state); err != nil {
		return to, err
	}
	if environ != "" && f.contextFlag() == "" {
		to.base, to.environ = environ, true
		return to, nil
	}
	if to.base, err = f.apiOf(to.place); err != nil {
		return to, err
	}
	switch {
	case f.contextFlag() != "": // the environment may be that of another server
		to.environ = environ == to.base
	case f.variable("TUNNOX_CONTEXT") != "" || to.base == defaultAPI:
		to.environ = true
	case f.keyFile != "":
		err = usageError("--api-key-file does not say which server the key is for: add --api URL, or --context %s if it is for %s", to.place.name, to.base)
	case key:
		err = usageError("TUNNOX_API_KEY does not say which server the key is for: set TUNNOX_API too, for example to %s; or unset it to use your login there", to.base)
	}
	return to, err
}

// apiOf gives the address of the API of a context. Where there is one context only, and
// its server has not told the address, it is that of a server on this machine.
func (f *apiFlags) apiOf(p place) (string, error) {
	k, err := p.read()
	if err != nil {
		return "", err
	}
	if api := k.api(); api != "" {
		return apiBase(api)
	}
	if p.name != "" && (!p.only || f.contextFlag() != "") {
		return "", usageError("the server of the context %s has not told the address of its API: give it once with tunnox use %s --api URL", p.name, p.name)
	}
	return defaultAPI, nil
}

// apiBase checks the URL of an API, and completes it.
func apiBase(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text // TUNNOX_API is host:port to tunnoxd
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return "", usageError("--api %q: must be a URL, for example %s", text, defaultAPI)
	}
	return strings.TrimSuffix(text, "/"), nil
}

// unusedKey tells of a key in the environment that is not sent.
func (f *apiFlags) unusedKey(to destination) string {
	if to.environ || f.variable("TUNNOX_API_KEY") == "" {
		return ""
	}
	return fmt.Sprintf("\n  TUNNOX_API_KEY is not used: it is for %s", cmp.Or(f.variable("TUNNOX_API"), "another server"))
}
