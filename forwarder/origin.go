package forwarder

import (
	"context"
	"log/slog"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// origin is where a stream came to this forwarder: the session of a source agent, a
// visitor at a public port or host, or the bridge from another forwarder. What differs between them is here; how a
// stream is joined to its target is the same for all.
type origin interface {
	// admit authorises the stream from this side's own records, and puts it among its
	// mapping's live ones.
	admit(ctx context.Context, open *wirepb.Open) (*forward, wire.Code)
	// counts tells whether the stream counts here against the limits of its accounts.
	// A stream counts at one node, where it begins.
	counts() bool
	// crosses tells whether the stream may go on over a bridge. It crosses one at most.
	crosses() bool
	// outside tells whether it came in at this forwarder itself, so that nothing but
	// this forwarder ends it.
	outside() bool
	// late tells whether the stream may begin while this forwarder drains.
	late() bool
	// through tells whether the stream comes through the session, and ends with it.
	through(s *session) bool
	// hold sees to it that the stream ends with its origin until it is answered, which
	// release says.
	hold(stream transport.Stream) (release func())
	// opened and refused note the answer in the numbers.
	opened()
	refused(code wire.Code)
	// logger is where the stream's end is logged.
	logger() *slog.Logger
}
