// Package datagram carries UDP datagrams over byte streams.
//
// Its duty: one [Flow] for each source address, which is an end that package transport
// can join with a stream; datagrams keep their boundaries, and leave in the order in
// which they came; what cannot go on at once is dropped and counted, never queued for
// long. A [Socket] answers from the address that it was asked at.
//
// In a stream each datagram has its length before it, two bytes, big endian.
//
// The limit: it does not know what a flow leads to, nor who pays for it. Whoever makes
// [Flows] says what becomes of a new one.
package datagram
