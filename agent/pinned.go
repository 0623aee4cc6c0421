package agent

import (
	"context"
	"fmt"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/wire"
)

// PinnedKeys are the static keys of other clients that the agent's owner has named. No
// server has a say in them. It is a Peers.
type PinnedKeys map[int64]seal.PublicKey

// KeyOf gives the key of a client.
func (p PinnedKeys) KeyOf(_ context.Context, _, client int64) (seal.PublicKey, error) {
	if key, ok := p[client]; ok {
		return key, nil
	}
	return seal.PublicKey{}, p.refuse(client, "is not known")
}

// Trust tells whether a key is that of a client.
func (p PinnedKeys) Trust(ctx context.Context, mapping, client int64, key seal.PublicKey) error {
	is, err := p.KeyOf(ctx, mapping, client)
	if err == nil && is != key {
		err = p.refuse(client, "is another one")
	}
	return err
}

func (p PinnedKeys) refuse(client int64, what string) error {
	return &wire.Refusal{Code: wire.KeyRefused, Message: fmt.Sprintf(
		"the key of client %d %s at the agent of the other end; its owner names it with --peer-key %[1]d=KEY, and \"tunnox agent key\" shows it at client %[1]d", client, what)}
}
