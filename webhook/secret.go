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

// Keys derives the secrets of webhooks from one key, which all servers have. So
// no secret is kept anywhere, and none is in the log.
type Keys struct{ master []byte }

const (
	masterLength = 32
	secretLength = 32
	secretPrefix = "whsec_" // as Standard Webhooks has it
)

// NewKey draws a key, as text for a file.
func NewKey() []byte {
	b := make([]byte, masterLength)
	_, _ = rand.Read(b) // never fails
	return []byte(base64.StdEncoding.EncodeToString(b) + "\n")
}

// ParseKeys reads what [NewKey] drew. The text is in no error.
func ParseKeys(text []byte) (Keys, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != masterLength {
		return Keys{}, errors.New("webhook key: want 32 bytes in base64")
	}
	return Keys{b}, nil
}

// String tells nothing.
func (Keys) String() string { return "[redacted]" }

// GoString tells nothing.
func (Keys) GoString() string { return "[redacted]" }

// Secret gives the secret of a webhook's generation, as its receiver is given it.
func (k Keys) Secret(webhook, generation int64) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(k.secret(webhook, generation))
}

func (k Keys) secret(webhook, generation int64) []byte {
	secret, err := hkdf.Key(sha256.New, k.master, nil, fmt.Sprintf("tunnox webhook secret\x00%d\x00%d", webhook, generation), secretLength)
	if err != nil {
		panic(err) // only a length that is too long is an error
	}
	return secret
}

// sign gives the webhook-signature header: one signature for each secret that
// counts, the newest first.
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
