package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestVerify(t *testing.T) {
	const secret = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0"
	now := time.Unix(1_700_000_000, 0)
	body := `{"type":"mapping_created"}`
	mac := hmac.New(sha256.New, []byte("secret of the test"))
	fmt.Fprintf(mac, "msg_1.%d.%s", now.Unix(), body)
	signature := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))

	for name, c := range map[string]struct {
		signature, body string
		at              time.Time
		ok              bool
	}{
		"as sent":             {signature, body, now, true},
		"one of two":          {"v1,AAAA " + signature, body, now, true},
		"another body":        {signature, body + " ", now, false},
		"another secret":      {"v1,AAAA", body, now, false},
		"no signature":        {"", body, now, false},
		"six minutes later":   {signature, body, now.Add(6 * time.Minute), false},
		"six minutes earlier": {signature, body, now.Add(-6 * time.Minute), false},
	} {
		header := http.Header{}
		header.Set("webhook-id", "msg_1")
		header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
		header.Set("webhook-signature", c.signature)
		if err := verify(secret, header, []byte(c.body), c.at); (err == nil) != c.ok {
			t.Errorf("%s: verify says %v", name, err)
		}
	}
}
