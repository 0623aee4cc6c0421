package datagram

import "sync/atomic"

// Counts are the numbers of all flows that share them. The zero value is ready.
type Counts struct {
	Open    atomic.Int64 // flows now
	Carried atomic.Int64 // datagrams, both directions
	Dropped atomic.Int64 // because a stream was too slow, or the system did not take them
	Refused atomic.Int64 // because there are too many flows, or what they lead to was refused
	Spared  atomic.Int64 // answers that went to nobody: the source may be forged, and the budget is used up
}
