//go:build !race

package pace

// Race tells that the race detector watches: memory, allocations and fine times say
// nothing then. sync.Pool, for one, drops what it is given at random.
const Race = false
