package agent

import (
	"context"
	"net"
	"syscall"
	"testing"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// An Open that says no protocol, as those of older forwarders, is one for tcp; one
// that the agent does not carry is refused before anything is dialled.
func TestOpenSaysWhatItCarries(t *testing.T) {
	policy, err := ParsePolicy([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for protocol, want := range map[string]wire.Code{"": wire.DialRefused, "tcp": wire.DialRefused, "sctp": wire.ProtocolUnavailable, "TCP": wire.ProtocolUnavailable} {
		dialled := 0
		target := newTarget(nil, Config{Policy: policy, DialService: func(context.Context, string, string) (net.Conn, error) {
			dialled++
			return nil, syscall.ECONNREFUSED
		}})
		_, err := target.dialKind(t.Context(), &wirepb.Open{Service: "127.0.0.1:1", Protocol: protocol})
		if wire.CodeOf(err) != want || (want == wire.DialRefused) != (dialled == 1) {
			t.Errorf("%q: %v after %d dials, want %s", protocol, err, dialled, want)
		}
	}
}
