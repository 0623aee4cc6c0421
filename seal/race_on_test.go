//go:build race

package seal

// Under the race detector a pool forgets at random.
const allowedAllocations = 2
