package agent

import (
	"context"
	"fmt"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// dialUnix reaches the unix socket that the stream names by its path.
func dialUnix(ctx context.Context, t *target, open *wirepb.Open) (transport.Duplex, error) {
	at := place{unixPlace, open.GetService()}
	if !at.valid() {
		return nil, fmt.Errorf("socket %q: %w", open.GetService(), wire.Malformed)
	}
	if _, err := t.allowsPlace(protocolOf(open), at); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, serviceTimeout)
	defer cancel()
	conn, err := t.dial(ctx, "unix", at.path)
	if err != nil {
		return nil, dialCode(err)
	}
	if duplex, ok := conn.(transport.Duplex); ok {
		return duplex, nil
	}
	_ = conn.Close()
	return nil, fmt.Errorf("dial service: %T cannot close one side", conn)
}
