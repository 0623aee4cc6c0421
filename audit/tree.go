package audit

import (
	"context"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of a Merkle tree: the roots of its full subtrees, from the
// largest to the smallest. Nothing more is needed to extend the tree.
type tree struct {
	size int64
	edge []tlog.Hash
}

// loadTree reads the edge of the stored tree of some size.
func loadTree(ctx context.Context, s Seals, size int64) (*tree, error) {
	t := &tree{size: size}
	if size == 0 {
		return t, nil
	}
	var numbers []int64
	for done, rest := int64(0), size; rest > 0; {
		level := bits.Len64(uint64(rest)) - 1
		numbers = append(numbers, tlog.StoredHashIndex(level, done>>level))
		done, rest = done+1<<level, rest-1<<level
	}
	hashes, err := s.TreeHashes(ctx, numbers)
	if err != nil {
		return nil, err
	}
	if len(hashes) != len(numbers) {
		return nil, fmt.Errorf("audit: only %d of the %d hashes of the tree's edge are stored", len(hashes), len(numbers))
	}
	for _, h := range hashes {
		t.edge = append(t.edge, h)
	}
	return t, nil
}

// add appends a leaf. It appends to stored the hashes that are stored with the leaf, in
// the order of package tlog, 32 bytes each.
func (t *tree) add(leaf tlog.Hash, stored []byte) []byte {
	t.edge, stored = append(t.edge, leaf), append(stored, leaf[:]...)
	// Every trailing 1 of the old size is a full subtree that this leaf completes.
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.edge) - 1
		joined := tlog.NodeHash(t.edge[last-1], t.edge[last])
		t.edge, stored = append(t.edge[:last-1], joined), append(stored, joined[:]...)
	}
	t.size++
	return stored
}

// root gives the hash of the tree. The hash of an empty tree is that of no bytes.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return emptyRoot
	}
	h := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edge[i], h)
	}
	return h
}

var emptyRoot, _ = tlog.TreeHash(0, nil) // reads nothing

func (t *tree) clone() *tree {
	return &tree{size: t.size, edge: append([]tlog.Hash(nil), t.edge...)}
}

// leavesOf gives the leaf hashes among the hashes that a seal stored.
func leavesOf(before, size int64, hashes []byte) ([]tlog.Hash, error) {
	first := tlog.StoredHashCount(before)
	if want := (tlog.StoredHashCount(size) - first) * tlog.HashSize; int64(len(hashes)) != want {
		return nil, fmt.Errorf("audit: the tree from %d to %d has %d bytes of hashes, not %d", before, size, len(hashes), want)
	}
	leaves := make([]tlog.Hash, 0, size-before)
	for n := before; n < size; n++ {
		at := (tlog.StoredHashIndex(0, n) - first) * tlog.HashSize
		leaves = append(leaves, tlog.Hash(hashes[at:at+tlog.HashSize]))
	}
	return leaves, nil
}
