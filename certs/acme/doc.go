// Package acme gets certificates of public hosts from an authority that speaks ACME
// (RFC 8555), such as Let's Encrypt, and renews them.
//
// Its duty: a [Keeper] gives the certificate of a host that is wanted, and orders it
// when there is none. Several keepers with one storage order each certificate once. The
// authority's challenges, HTTP-01 and TLS-ALPN-01, are answered by whoever asks a
// keeper for the answer.
//
// Its limits: it knows no mapping and opens no listener. Which hosts are wanted, and
// who answers visitors, is its caller's business. It keeps the private keys, so it
// belongs into control planes.
package acme
