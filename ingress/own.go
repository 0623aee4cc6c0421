package ingress

import (
	"net/http"
)

// serveOwn answers for a host that belongs to no mapping. Without TLS a page is
// redirected. A request with a secret, or one that changes something, is refused: who
// sends it must learn that everybody on the way could read it.
func (s *Server) serveOwn(w *exchange, in *http.Request, host string, own http.Handler) {
	w.own = true
	switch {
	case scheme(in, s.config.Trusted) == "https":
		own.ServeHTTP(w, in)
	case s.config.Secure != nil && in.Header.Get(authorizationHeader) == "" && (in.Method == http.MethodGet || in.Method == http.MethodHead):
		http.Redirect(w, in, s.config.Secure(host, in.URL), http.StatusPermanentRedirect)
	default:
		onlySecure.write(w, in)
	}
}
