package forwarder

import (
	"context"
	"log/slog"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// fromHealth is the origin of a stream that looks whether a target answers. It carries
// nothing, and counts nowhere.
type fromHealth struct{ f *Forwarder }

func (h *fromHealth) counts() bool          { return false }
func (h *fromHealth) crosses() bool         { return true }
func (h *fromHealth) outside() bool         { return false }
func (h *fromHealth) late() bool            { return false }
func (h *fromHealth) through(*session) bool { return false }
func (h *fromHealth) opened()               {}
func (h *fromHealth) refused(wire.Code)     {}
func (h *fromHealth) logger() *slog.Logger  { return h.f.log }

func (h *fromHealth) hold(transport.Stream) (release func()) { return func() {} }

// admit is not asked: the forwarder begins the stream itself.
func (h *fromHealth) admit(context.Context, *wirepb.Open) (*forward, wire.Code) {
	return nil, wire.Internal
}
