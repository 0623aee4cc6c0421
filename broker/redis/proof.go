package redis

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/tunnox-net/tunnox/attest"
)

// The purposes of proofs.
const (
	purposeEntry = attest.Purpose("tunnox feed entry")
	purposeEpoch = attest.Purpose("tunnox feed epoch")
)

// metaProof is the proof of an entry, base64. It is metadata, because a message has
// nothing else beside its payload.
const metaProof = "proof"

// fieldProof is the proof of an epoch.
const fieldProof = "proof"

// errNoKey is what a process without the key gets when it is to publish.
var errNoKey = errors.New("feed: this process may only follow it")

// item is what the proof of an entry is of. The position before it and the id of the
// record there are part of it: an entry is good behind that one and no other.
func item(m *message.Message) []byte {
	return attest.Join([]byte(m.UUID), []byte(m.Metadata.Get(metaPosition)), []byte(m.Metadata.Get(metaPrev)),
		[]byte(m.Metadata.Get(metaPrevID)), []byte(m.Metadata.Get(metaControl)), []byte(m.Metadata.Get(metaRecord)), m.Payload)
}

// prove gives messages their proofs.
func prove(key *attest.Key, messages ...*message.Message) {
	items := make([][]byte, len(messages))
	for i, m := range messages {
		items[i] = item(m)
	}
	for i, proof := range key.Attest(purposeEntry, items...) {
		messages[i].Metadata.Set(metaProof, base64.StdEncoding.EncodeToString(proof))
	}
}

// proved returns nil when a control plane wrote the message.
func proved(ctx context.Context, v *attest.Verifier, m *message.Message) error {
	proof, err := base64.StdEncoding.DecodeString(m.Metadata.Get(metaProof))
	if err != nil {
		return fmt.Errorf("%w: its proof is not base64", attest.ErrForged)
	}
	return v.Check(ctx, purposeEntry, item(m), proof)
}
