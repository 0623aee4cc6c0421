package httpapi_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tunnox-net/tunnox/httpapi"
)

func (w *world) login(name, password string) *answer {
	w.t.Helper()
	return w.send(w.request("POST", path("auth", "login"), fields{"username": name, "password": password}))
}

func (w *world) refresh(token string) *answer {
	w.t.Helper()
	return w.send(w.request("POST", path("auth", "refresh"), fields{"refresh_token": token}))
}

func TestLoginAndRefresh(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ann := w.person("ann", "user")
		me := ann.do("GET", path("auth", "me"), nil).want(200)
		if me.id("user_id") != ann.id || me.Body["role"] != "user" {
			t.Errorf("me: %s", me.Text)
		}
		w.login("ann", "wrong horse").fault(401, "login_refused")
		w.login("nobody", "correct horse").fault(401, "login_refused")
		first := w.login("ANN", "correct horse").want(200)
		if first.Body["token_type"] != "Bearer" || first.id("expires_in") != 900 || first.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("login: %s %v", first.Text, first.Header)
		}
		second := w.refresh(first.text("refresh_token")).want(200)
		w.as(second.text("access_token"), "GET", path("users", ann.id), nil).want(200)
		w.as(first.text("access_token"), "GET", path("users", ann.id), nil).want(200)
		// The first refresh token again: somebody has a copy, and the family ends.
		w.refresh(first.text("refresh_token")).fault(401, "login_ended")
		w.refresh(second.text("refresh_token")).fault(401, "login_ended")
		w.as(second.text("access_token"), "GET", path("users", ann.id), nil).fault(401, "unauthorized")
		// Another login of the same user goes on.
		ann.do("GET", path("users", ann.id), nil).want(200)
		ann.do("POST", path("auth", "logout"), nil).want(204)
		ann.do("GET", path("users", ann.id), nil).fault(401, "unauthorized")
		for _, bad := range []string{"x", "tnr_1_AAAA", strings.Replace(first.text("refresh_token"), "_", "-", 1), apiKey} {
			w.refresh(bad).fault(401, "login_ended")
		}
	})
}

// TestWhatEndsLoginsAndKeys: a new password, a disabled and a deleted user end
// every token at once.
func TestWhatEndsLoginsAndKeys(t *testing.T) {
	w := newWorld(t)
	tokens := func(p *person) map[string]string {
		return map[string]string{"login": p.access, "key": p.do("POST", path("keys"), nil2).want(201).text("key")}
	}
	ann := w.person("ann", "user")
	all := tokens(ann)
	w.do("POST", path("users", ann.id, "disable"), nil).want(200)
	for name, token := range all {
		if a := w.as(token, "GET", path("users", ann.id), nil); a.Status != 401 {
			t.Errorf("%s of a disabled user: %d", name, a.Status)
		}
	}
	w.login("ann", "correct horse").fault(401, "login_refused")
	w.do("POST", path("users", ann.id, "enable"), nil).want(200)
	w.as(all["key"], "GET", path("users", ann.id), nil).want(200)

	ann.do("PUT", path("users", ann.id), fields{"password": "battery staple"}).fault(422, "invalid", "body.current_password")
	ann.do("PUT", path("users", ann.id), fields{"password": "battery staple", "current_password": "wrong"}).fault(422, "invalid", "body.current_password")
	ann.do("PUT", path("users", ann.id), fields{"password": "battery staple", "current_password": "correct horse"}).want(200)
	w.as(all["login"], "GET", path("users", ann.id), nil).fault(401, "unauthorized")
	w.as(all["key"], "GET", path("users", ann.id), nil).want(200)
	w.login("ann", "battery staple").want(200)

	w.do("DELETE", path("users", ann.id), nil).want(204)
	w.as(all["key"], "GET", path("auth", "me"), nil).fault(401, "unauthorized")
	w.login("ann", "battery staple").fault(401, "login_refused")
}

var nil2 = fields{}

// TestAdminsKeyIsNeverMoreThanTheOwner: who is made a user again has keys of a user.
func TestAdminsKeyIsNeverMoreThanTheOwner(t *testing.T) {
	w := newWorld(t)
	root, ann := w.person("root", "admin"), w.person("ann", "user")
	full := root.do("POST", path("keys"), nil2).want(201).text("key")
	narrow := root.do("POST", path("keys"), fields{"scopes": []string{"read"}}).want(201)
	w.as(full, "GET", path("users", ann.id), nil).want(200)
	w.as(narrow.text("key"), "GET", path("users", ann.id), nil).fault(404, "user_not_found")
	w.as(narrow.text("key"), "POST", path("keys"), nil2).fault(403, "scope_missing")
	ann.do("POST", path("keys"), fields{"scopes": []string{"admin"}}).fault(403, "scope_denied", "body.scopes")
	ann.do("POST", path("keys"), fields{"user_id": root.id}).fault(404, "user_not_found", "body.user_id")
	w.do("PUT", path("users", root.id, "role"), fields{"role": "user"}).want(200).has(fields{"role": "user"})
	w.as(full, "GET", path("users", ann.id), nil).fault(404, "user_not_found")
	w.as(full, "GET", path("users", root.id), nil).want(200)
}

func TestKeysAreShownOnceAndRevoked(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ann := w.person("ann", "user")
		made := w.as(ann.access, "POST", path("keys"), fields{"name": "ci", "expires_at": time.Now().Add(time.Hour)}, "Idempotency-Key", "k").want(201)
		key, id := made.text("key"), made.id("key_id")
		if !strings.HasPrefix(key, made.text("prefix")) || len(key) < 50 {
			t.Errorf("key %d characters, prefix %s", len(key), made.text("prefix"))
		}
		again := w.as(ann.access, "POST", path("keys"), nil, "Idempotency-Key", "other").Status
		if again != 400 {
			t.Errorf("no body: %d", again)
		}
		shown := w.as(key, "GET", path("keys", id), nil).want(200)
		if strings.Contains(shown.Text, key) || shown.Body["last_used"] == nil || shown.Body["name"] != "ci" {
			t.Errorf("key shows %s", shown.Text)
		}
		if ids := ann.do("GET", path("keys"), nil).want(200).items("key_id"); len(ids) != 1 || ids[0] != id {
			t.Errorf("keys: %v", ids)
		}
		if ids := w.do("GET", path("keys")+"?user_id="+formatID(ann.id), nil).want(200).items("key_id"); len(ids) != 1 {
			t.Errorf("keys of ann: %v", ids)
		}
		w.as(key+"x", "GET", path("keys", id), nil).fault(401, "unauthorized")
		w.as(key[:len(key)-1], "GET", path("keys", id), nil).fault(401, "unauthorized")
		ann.do("DELETE", path("keys", id), nil).want(204)
		w.as(key, "GET", path("keys", id), nil).fault(401, "unauthorized")
		w.do("GET", path("keys", id), nil).fault(404, "key_not_found")
		events := w.do("GET", path("events")+"?limit=500", nil).want(200).Text
		if strings.Contains(events, key) || !strings.Contains(events, "key_revoked") {
			t.Error("the log shows a key, or not that it was revoked")
		}
		ann.do("POST", path("keys"), fields{"expires_at": time.Now().Add(-time.Hour)}).fault(422, "invalid", "body.expires_at")
		// The operator's own keys.
		operators := w.do("POST", path("keys"), fields{"scopes": []string{"read"}}).want(201)
		w.as(operators.text("key"), "GET", path("users", ann.id), nil).want(200)
		w.as(operators.text("key"), "DELETE", path("users", ann.id), nil).fault(403, "scope_missing")
	})
}

// TestAlgorithms: the key says how a token is signed, and the token has no say.
func TestAlgorithms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	const secret = "a secret of thirty-two bytes or more"
	for alg, text := range map[string]string{"EdDSA": encode(edKey), "RS256": encode(rsaKey), "HS256": "HS256:" + secret + "\n"} {
		t.Run(alg, func(t *testing.T) {
			key, err := httpapi.ParseSigningKey([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(c *httpapi.Config) { c.SigningKeys = []httpapi.SigningKey{key} })
			ann := w.person("ann", "user")
			ann.do("GET", path("auth", "me"), nil).want(200)
			parts := strings.Split(ann.access, ".")
			head := map[string]any{}
			b, _ := base64.RawURLEncoding.DecodeString(parts[0])
			if err := json.Unmarshal(b, &head); err != nil || head["alg"] != alg {
				t.Fatalf("signed with %v, %v", head, err)
			}
			jwks := w.send(w.request("GET", "/.well-known/jwks.json", nil)).want(200).Text
			if alg == "HS256" && strings.Contains(jwks, "kid") || alg != "HS256" && !strings.Contains(jwks, head["kid"].(string)) {
				t.Errorf("jwks: %s", jwks)
			}
			claims := jwt.MapClaims{}
			if _, _, err := jwt.NewParser().ParseUnverified(ann.access, claims); err != nil {
				t.Fatal(err)
			}
			forge := func(method jwt.SigningMethod, key any, change func(jwt.MapClaims)) string {
				c := jwt.MapClaims{}
				for k, v := range claims {
					c[k] = v
				}
				change(c)
				token := jwt.NewWithClaims(method, c)
				token.Header["kid"], token.Header["typ"] = head["kid"], "at+jwt"
				if c["critical"] != nil {
					token.Header["crit"], token.Header["exp"] = []string{"exp"}, 1
				}
				text, err := token.SignedString(key)
				if err != nil {
					t.Fatal(err)
				}
				return text
			}
			same := func(jwt.MapClaims) {}
			mine := map[string]any{"EdDSA": edKey, "RS256": rsaKey, "HS256": []byte(secret)}[alg]
			method := jwt.GetSigningMethod(alg)
			w.as(forge(method, mine, same), "GET", path("auth", "me"), nil).want(200) // so that what follows is refused for its reason
			public, err := x509.MarshalPKIXPublicKey(edKey.Public())
			if err != nil {
				t.Fatal(err)
			}
			for name, token := range map[string]string{
				"none":           forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, same),
				"public as HMAC": forge(jwt.SigningMethodHS256, public, same),
				"another key":    forge(jwt.SigningMethodHS512, []byte(secret), same),
				"audience":       forge(method, mine, func(c jwt.MapClaims) { c["aud"] = "other" }),
				"no audience":    forge(method, mine, func(c jwt.MapClaims) { delete(c, "aud") }),
				"issuer":         forge(method, mine, func(c jwt.MapClaims) { c["iss"] = "other" }),
				"expired":        forge(method, mine, func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }),
				"no expiry":      forge(method, mine, func(c jwt.MapClaims) { delete(c, "exp") }),
				"another login":  forge(method, mine, func(c jwt.MapClaims) { c["sid"] = "7" }),
				"critical":       forge(method, mine, func(c jwt.MapClaims) { c["critical"] = true }),
				"another user":   forge(method, mine, func(c jwt.MapClaims) { c["sub"] = "100000009" }),
				"no user":        forge(method, mine, func(c jwt.MapClaims) { delete(c, "sub") }),
				"cut":            parts[0] + "." + parts[1] + ".",
			} {
				if a := w.as(token, "GET", path("auth", "me"), nil); a.Status != 401 {
					t.Errorf("%s: %d %s", name, a.Status, a.Text)
				}
			}
		})
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err == nil {
		if _, err := httpapi.ParseSigningKey([]byte(encode(small))); err == nil {
			t.Error("a small RSA key was taken")
		}
	}
	for _, bad := range []string{"", "short", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := httpapi.ParseSigningKey([]byte(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("key %q: %v", bad, err)
		}
	}
}

// TestRefreshAtTheSameMoment: of two uses of one refresh token at most one is
// given tokens, and after it none of them are good.
func TestRefreshAtTheSameMoment(t *testing.T) {
	w := newStoredWorld(t)
	w.person("ann", "user")
	token := w.login("ann", "correct horse").want(200).text("refresh_token")
	answers := make([]*answer, 4)
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() { answers[i] = w.refresh(token) })
	}
	asking.Wait()
	given := 0
	for _, a := range answers {
		if a.Status == 200 {
			given++
			w.as(a.text("access_token"), "GET", path("auth", "me"), nil).fault(401, "unauthorized")
		}
	}
	if given > 1 {
		t.Errorf("%d got tokens for one refresh token", given)
	}
}
