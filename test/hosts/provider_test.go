package hosts

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

const (
	clientID     = "tunnox"
	clientSecret = "a secret of the provider's"
)

// provider is an OpenID provider at which everybody is who the test says.
type provider struct {
	t   testing.TB
	url string
	key *rsa.PrivateKey

	mu     sync.Mutex
	claims map[string]any        // of the next visitor; guarded by mu
	codes  map[string]url.Values // what a code was asked for with; guarded by mu
}

func startProvider(t testing.TB) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		p.write(rw, map[string]any{"issuer": p.url, "authorization_endpoint": p.url + "/auth", "token_endpoint": p.url + "/token", "jwks_uri": p.url + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(rw http.ResponseWriter, _ *http.Request) {
		p.write(rw, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1",
			"n": part(key.N.Bytes()), "e": part(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("GET /auth", p.auth)
	mux.HandleFunc("POST /token", p.token)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

// is says who the next visitor is.
func (p *provider) is(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = claims
}

func (p *provider) auth(rw http.ResponseWriter, in *http.Request) {
	q := in.URL.Query()
	if q.Get("client_id") != clientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || len(q.Get("state")) < 20 || len(q.Get("nonce")) < 20 {
		http.Error(rw, "not asked as it should", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = q
	p.mu.Unlock()
	http.Redirect(rw, in, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
}

func (p *provider) token(rw http.ResponseWriter, in *http.Request) {
	id, secret, basic := in.BasicAuth()
	if basic { // RFC 6749, section 2.3.1
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = in.FormValue("client_id"), in.FormValue("client_secret")
	}
	p.mu.Lock()
	asked := p.codes[in.FormValue("code")]
	delete(p.codes, in.FormValue("code"))
	claims := maps.Clone(p.claims)
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(in.FormValue("code_verifier")))
	if id != clientID || secret != clientSecret || asked == nil || asked.Get("code_challenge") != part(sum[:]) || asked.Get("redirect_uri") != in.FormValue("redirect_uri") {
		rw.WriteHeader(http.StatusBadRequest)
		p.write(rw, map[string]any{"error": "invalid_grant"})
		return
	}
	all := map[string]any{"iss": p.url, "aud": clientID, "sub": "subject", "nonce": asked.Get("nonce"), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	p.write(rw, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.sign(all)})
}

func (p *provider) sign(claims map[string]any) string {
	body, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	text := part([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + part(body)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Error(err)
	}
	return text + "." + part(signature)
}

func (p *provider) write(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(rw).Encode(v); err != nil {
		p.t.Error(err)
	}
}

func part(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
