// Command webhook receives webhooks and checks their signature as Standard
// Webhooks says: https://github.com/standard-webhooks/standard-webhooks.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	address := flags.String("listen", "127.0.0.1:8088", "address to listen on")
	secretFile := flags.String("secret-file", "webhook.secret", "file with the webhook's secret, whsec_...; read at each message")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", l.Addr())
	server := &http.Server{Handler: receiver(*secretFile), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// receiver answers 204 to what it has taken. Any other answer makes the server
// send the message again later.
func receiver(secretFile string) http.HandlerFunc {
	return func(w http.ResponseWriter, in *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, in.Body, 1<<20))
		if err != nil {
			http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
			return
		}
		secret, err := os.ReadFile(secretFile)
		if err != nil {
			http.Error(w, "this receiver has no secret yet", http.StatusServiceUnavailable)
			return
		}
		if err := verify(strings.TrimSpace(string(secret)), in.Header, body, time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		var message struct {
			Type     string `json:"type"`
			Position int64  `json:"position"`
		}
		if err := json.Unmarshal(body, &message); err != nil {
			http.Error(w, "the body is no JSON", http.StatusBadRequest)
			return
		}
		// The same message may come twice: keep webhook-id where that matters.
		fmt.Printf("%s at position %d\n", message.Type, message.Position)
		w.WriteHeader(http.StatusNoContent)
	}
}

// verify checks the age of a message and that one of its signatures was made with
// the secret.
func verify(secret string, header http.Header, body []byte, now time.Time) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return errors.New("the secret is not whsec_ and base64")
	}
	sent, err := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if err != nil || now.Sub(time.Unix(sent, 0)).Abs() > 5*time.Minute {
		return errors.New("the message is too old, or from the future: somebody may have sent it again")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", header.Get("webhook-id"), sent, body)
	want := mac.Sum(nil)
	for _, signature := range strings.Fields(header.Get("webhook-signature")) {
		version, text, _ := strings.Cut(signature, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if version == "v1" && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return errors.New("no signature of the message was made with this secret")
}
