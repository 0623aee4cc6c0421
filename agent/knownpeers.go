package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/logproof"
	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/wire"
)

// knownPeers is a Peers: a key that the agent's owner has named comes first, and for other
// clients the newest key that the server's log is proven to have.
type knownPeers struct {
	pinned PinnedKeys
	proofs *proofs
}

// KeyOf gives the key of a client, and asks for it if none is known.
func (k *knownPeers) KeyOf(ctx context.Context, mapping, client int64) (seal.PublicKey, error) {
	if _, ok := k.pinned[client]; ok {
		return k.pinned.KeyOf(ctx, mapping, client)
	}
	if key, _, ok := k.proofs.key(client); ok {
		return key, nil
	}
	if _, err := k.proofs.refresh(ctx, mapping, client); err != nil {
		return seal.PublicKey{}, unproven(client, err)
	}
	if key, _, ok := k.proofs.key(client); ok {
		return key, nil
	}
	return seal.PublicKey{}, &wire.Refusal{Code: wire.KeyRefused, Message: fmt.Sprintf(
		"client %d has announced no key to its server: update its agent and start it, or name its key at the other end with --peer-key %[1]d=KEY, which \"tunnox agent key\" shows there", client)}
}

// Trust tells whether a key is that of a client. A key that is not the one that is known is
// believed when the log is proven to have it as a newer one.
func (k *knownPeers) Trust(ctx context.Context, mapping, client int64, key seal.PublicKey) error {
	if _, ok := k.pinned[client]; ok {
		return k.pinned.Trust(ctx, mapping, client, key)
	}
	for {
		if is, _, ok := k.proofs.key(client); ok && is == key {
			return nil
		}
		joined, err := k.proofs.refresh(ctx, mapping, client)
		if err != nil {
			return unproven(client, err)
		}
		if is, _, ok := k.proofs.key(client); ok && is == key {
			return nil
		}
		if !joined { // a question that was put earlier may have missed the newest key
			return &wire.Refusal{Code: wire.KeyRefused, Message: fmt.Sprintf(
				"client %d shows another key than its newest one in the server's log: whoever that is, it is not the agent that announced that key", client)}
		}
	}
}

// newer asks for a newer key of a client that has not understood a handshake, and tells
// whether there is one.
func (k *knownPeers) newer(ctx context.Context, mapping, client int64, than seal.PublicKey) bool {
	if _, ok := k.pinned[client]; ok {
		return false
	}
	for {
		if key, _, ok := k.proofs.key(client); ok && key != than {
			return true
		}
		joined, err := k.proofs.refresh(ctx, mapping, client)
		if err != nil {
			return false
		}
		if key, _, ok := k.proofs.key(client); ok && key != than {
			return true
		}
		if !joined {
			return false
		}
	}
}

// compare compares what a peer has seen of the server's log with what this agent has. Of a
// peer whose key the owner has named it does not matter: no log has a say in that.
func (k *knownPeers) compare(ctx context.Context, client int64, note []byte) error {
	if _, ok := k.pinned[client]; ok {
		return nil
	}
	err := k.proofs.compare(ctx, note)
	if err == nil || wire.CodeOf(err) != wire.Internal {
		return err
	}
	return unproven(client, err)
}

// unproven is the refusal of a key that the server does not prove. It says what to do.
func unproven(client int64, why error) error {
	const byHand = "or name its key with --peer-key %d=KEY, which \"tunnox agent key\" shows there"
	fault, wrong := errors.AsType[*logproof.Fault](why)
	switch {
	case wrong:
		return &wire.Refusal{Code: wire.KeyRefused, Message: fmt.Sprintf(
			"the key of client %d is not believed: %v; the server may have been restored from a backup, or whoever runs it lies: ask them, "+byHand, client, fault, client)}
	case errors.Is(why, errNoProofs):
		return &wire.Refusal{Code: wire.KeyRefused, Message: fmt.Sprintf("the key of client %d is not known: %v; update the server, "+byHand, client, why, client)}
	}
	return &wire.Refusal{Code: wire.KeyRefused, Message: fmt.Sprintf("the key of client %d cannot be proved now: %v; try again in a moment", client, why)}
}
