package ingress

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// HeaderChanges are made to the headers of a message: first what goes, then what comes.
type HeaderChanges struct {
	Remove []string
	Set    map[string]string
}

func (c HeaderChanges) apply(h http.Header) {
	for _, name := range c.Remove {
		h.Del(name)
	}
	for name, value := range c.Set {
		h.Set(name, value)
	}
}

// prefixHeader tells a service what was taken off the beginning of the path.
const prefixHeader = "X-Forwarded-Prefix"

// rewrite changes a visitor's request as the site asks. The headers that say where the
// request comes from are set before.
func (site Site) rewrite(out *http.Request) {
	identify(out.Header, site.user)
	if site.HostHeader != "" {
		out.Host = site.HostHeader
	}
	if site.StripPrefix != "" {
		out.Header.Del(prefixHeader) // a visitor may have sent one
		if strip(out.URL, site.StripPrefix) {
			out.Header.Set(prefixHeader, site.StripPrefix)
		}
	}
	site.Request.apply(out.Header)
}

// strip takes a prefix off a path, on the border of a segment. It reports false, and
// changes nothing, when the path does not begin with it.
func strip(u *url.URL, prefix string) bool {
	if rest, ok := below(u.EscapedPath(), prefix); ok { // what follows stays as it was escaped
		if plain, err := url.PathUnescape(rest); err == nil {
			u.Path, u.RawPath = plain, rest
			return true
		}
	}
	rest, ok := below(u.Path, prefix)
	if ok {
		u.Path, u.RawPath = rest, ""
	}
	return ok
}

// below gives what follows a prefix in a path, from the slash on.
func below(p, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(p, prefix)
	switch {
	case !ok:
		return "", false
	case rest == "":
		return "/", true
	}
	return rest, rest[0] == '/'
}

// routePath is the path that says which mapping of a host a request is for: without
// escapes, dot segments and empty segments. A service may take /%61dmin for /admin, and
// /x/../admin too; what leads to the mapping for /admin there must lead to it here, or
// its rules would be walked around.
func routePath(u *url.URL) string {
	if u.Path == "*" {
		return u.Path
	}
	return path.Clean("/" + u.Path)
}
