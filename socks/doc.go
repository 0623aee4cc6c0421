// Package socks reads and writes the messages of SOCKS 5 (RFC 1928) and of its
// authentication by user name and password (RFC 1929), on the side of the server.
//
// Its limit: it opens nothing and decides nothing. Whoever has a connection asks it for
// what the client wants, and tells it the answer.
package socks
