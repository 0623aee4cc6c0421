// Package logproof verifies what a signed log proves, for who does not trust the server
// that has the log.
//
// Its duty: checkpoints (signed notes, C2SP tlog-checkpoint), proofs that a record is in
// the log and that the log only grew (RFC 6962), and [Known], what an agent remembers of
// its server's log. Nothing of it asks a server anything: proofs are handed in, and a
// [Fault] names what is wrong with them.
//
// Its limit: it proves that everybody who compares checkpoints sees the same log. It does
// not prove that what stands in the log is right. Whoever runs the server can write a key
// into the log in a client's name; but the record stays there for ever, where the client's
// owner finds it.
package logproof
