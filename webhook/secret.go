package webhook

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Keys derives the secrets of webhooks from one key, which all servers have. So no
// secret is stored, and none is in the log.
type Keys struct{ master []byte }

const (
	masterLength = 32
	secretLength = 32
	secretPrefix = "whsec_" // as in Standard Webhooks
)

// NewKey draws a key, as text for a file.
func NewKey() []byte {
	b := make([]byte, masterLength)
	_, _ = rand.Read(b) // never fails
	return []byte(base64.StdEncoding.EncodeToString(b) + "\n")
}

// ParseKeys reads a key that [NewKey] drew. No error contains the text.
func ParseKeys(text []byte) (Keys, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != masterLength {
		return Keys{}, errors.New("webhook key: it must be 32 bytes in base64")
	}
	return Keys{b}, nil
}

// String hides the key.
func (Keys) String() string { return "[redacted]" }

// GoString hides the key.
func (Keys) GoString() string { return "[redacted]" }

// Secret gives the secret of a webhook's generation, in the form that its receiver
// gets.
func (k Keys) Secret(webhook, generation int64) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(k.secret(webhook, generation))
}

func (k Keys) secret(webhook, generation int64) []byte {
	secret, err := hkdf.Key(sha256.New, k.master, nil, fmt.Sprintf("tunnox webhook secret\x00%d\x00%d", webhook, generation), secretLength)
	if err != nil {
		panic(err) // the only possible error is a length that is too long
	}
	return secret
}

// sign gives the webhook-signature header: one signature for each valid secret, the
// newest first.
func (k Keys) sign(webhook int64, generations []int64, message string, at time.Time, body []byte) string {
	signatures := make([]string, len(generations))
	for i, generation := range generations {
		mac := hmac.New(sha256.New, k.secret(webhook, generation))
		mac.Write([]byte(message + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " ")
}
