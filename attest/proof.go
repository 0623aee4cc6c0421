package attest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// A proof is, in bytes: a version, the key's id, how many items the group has, which
// of them this is, the signature of the root, and the hashes beside the way from the
// item to the root.
const (
	version    = 1
	headerSize = 1 + len(KeyID{}) + 2 + ed25519.SignatureSize
	// MostProof is the longest proof.
	MostProof = headerSize + 4*sha256.Size
)

// ErrForged is returned for an item that its proof does not fit.
var ErrForged = errors.New("attest: not written by a control plane")

type hash = [sha256.Size]byte

func leafOf(why Purpose, item []byte) (h hash) {
	d := sha256.New()
	d.Write([]byte{0, byte(len(why))})
	d.Write([]byte(why))
	d.Write(item)
	d.Sum(h[:0])
	return h
}

func parentOf(left, right hash) (h hash) {
	d := sha256.New()
	d.Write([]byte{1})
	d.Write(left[:])
	d.Write(right[:])
	d.Sum(h[:0])
	return h
}

// statement is what is signed of a group.
func statement(items byte, root hash) []byte {
	return append([]byte("tunnox attests\x00"), append([]byte{items}, root[:]...)...)
}

// Attest gives the proof of each item, in order.
func (k *Key) Attest(why Purpose, items ...[]byte) [][]byte {
	proofs := make([][]byte, 0, len(items))
	for len(items) > 0 {
		n := min(len(items), group)
		proofs = k.attest(proofs, why, items[:n])
		items = items[n:]
	}
	return proofs
}

func (k *Key) attest(proofs [][]byte, why Purpose, items [][]byte) [][]byte {
	level := make([]hash, len(items))
	for i, item := range items {
		level[i] = leafOf(why, item)
	}
	paths := make([][]byte, len(items))
	at := make([]int, len(items)) // where each item's ancestor is in the level
	for i := range at {
		at[i] = i
	}
	for len(level) > 1 {
		for i, p := range at {
			if beside := p ^ 1; beside < len(level) {
				paths[i] = append(paths[i], level[beside][:]...)
			}
			at[i] = p / 2
		}
		level = above(level)
	}
	count := byte(len(items)) //nolint:gosec // at most group
	signature := ed25519.Sign(k.private, statement(count, level[0]))
	for i, path := range paths {
		proof := make([]byte, 0, headerSize+len(path))
		proof = append(append(proof, version), k.id[:]...)
		proof = append(proof, count, byte(i)) //nolint:gosec // below group
		proofs = append(proofs, append(append(proof, signature...), path...))
	}
	return proofs
}

// above gives the parents of a level. One without a sibling moves up as it is.
func above(level []hash) []hash {
	next := make([]hash, 0, (len(level)+1)/2)
	for i := 0; i < len(level); i += 2 {
		if i+1 == len(level) {
			next = append(next, level[i])
		} else {
			next = append(next, parentOf(level[i], level[i+1]))
		}
	}
	return next
}

// climb gives the root that an item and its path come to.
func climb(h hash, count, index int, path []byte) (hash, bool) {
	for count > 1 {
		if beside := index ^ 1; beside < count {
			if len(path) < sha256.Size {
				return h, false
			}
			other := hash(path[:sha256.Size])
			path = path[sha256.Size:]
			if index%2 == 0 {
				h = parentOf(h, other)
			} else {
				h = parentOf(other, h)
			}
		}
		count, index = (count+1)/2, index/2
	}
	return h, len(path) == 0
}

// mostRoots bounds the signatures that are remembered as right.
const mostRoots = 4096

// Verifier checks proofs.
type Verifier struct {
	// trusted gives the public key of an id, ErrForged when nobody trusts it, or why
	// that cannot be known now.
	trusted func(context.Context, KeyID) (ed25519.PublicKey, error)

	mu   sync.Mutex
	keys map[KeyID]ed25519.PublicKey // guarded by mu
	seen map[hash]struct{}           // guarded by mu; signatures that were checked
}

// NewVerifier trusts the keys that trusted gives. A key is asked for once; [Forget]
// has all be asked for again.
func NewVerifier(trusted func(context.Context, KeyID) (ed25519.PublicKey, error)) *Verifier {
	return &Verifier{trusted: trusted, keys: map[KeyID]ed25519.PublicKey{}, seen: map[hash]struct{}{}}
}

// Verifier trusts this key only.
func (k *Key) Verifier() *Verifier {
	return NewVerifier(func(_ context.Context, id KeyID) (ed25519.PublicKey, error) {
		if id != k.id {
			return nil, fmt.Errorf("%w: it has the proof of another key", ErrForged)
		}
		return k.Public(), nil
	})
}

// Forget has keys be asked for again, because some may not be trusted any more.
func (v *Verifier) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.keys)
	clear(v.seen)
}

// Check returns nil when the proof is that of the item, for this purpose.
func (v *Verifier) Check(ctx context.Context, why Purpose, item, proof []byte) error {
	if len(proof) < headerSize || len(proof) > MostProof || proof[0] != version {
		return fmt.Errorf("%w: it has no proof", ErrForged)
	}
	id, rest := KeyID(proof[1:1+len(KeyID{})]), proof[1+len(KeyID{}):]
	count, index := int(rest[0]), int(rest[1])
	signature, path := rest[2:2+ed25519.SignatureSize], rest[2+ed25519.SignatureSize:]
	if count < 1 || count > group || index >= count {
		return fmt.Errorf("%w: its proof has no such item", ErrForged)
	}
	root, ok := climb(leafOf(why, item), count, index, path)
	if !ok {
		return fmt.Errorf("%w: the path of its proof has another length", ErrForged)
	}
	signed := statement(rest[0], root)
	mark := sha256.Sum256(bytes.Join([][]byte{id[:], signature, signed}, nil))
	key, checked := v.known(id, mark)
	if checked {
		return nil
	}
	if key == nil {
		var err error
		if key, err = v.trusted(ctx, id); err != nil {
			return err
		}
	}
	if !ed25519.Verify(key, signed, signature) {
		return fmt.Errorf("%w: its proof does not fit", ErrForged)
	}
	v.remember(id, key, mark)
	return nil
}

func (v *Verifier) known(id KeyID, mark hash) (key ed25519.PublicKey, checked bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, checked = v.seen[mark]
	return v.keys[id], checked
}

func (v *Verifier) remember(id KeyID, key ed25519.PublicKey, mark hash) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) >= mostRoots {
		clear(v.seen)
	}
	v.keys[id], v.seen[mark] = key, struct{}{}
}

// Join makes one item of several parts, so that no two lists of parts give the same.
func Join(parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += 4 + len(p)
	}
	item := make([]byte, 0, n)
	for _, p := range parts {
		item = binary.BigEndian.AppendUint32(item, uint32(len(p))) //nolint:gosec // far below 4 GiB
		item = append(item, p...)
	}
	return item
}
