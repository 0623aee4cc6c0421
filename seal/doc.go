// Package seal encrypts a stream from one end to the other, so that whatever carries it
// sees ciphertext only.
//
// It has three parts. Keys: each agent has a static key ([Key]); others know its public
// half ([PublicKey]), and two people can compare a [Phrase] of two of them. The
// handshake: one message in Open and one in Opened ([Party.Initiate], [Party.Respond]).
// Records: what is carried after that, made of the [Secrets] of a handshake.
//
// # Handshake
//
// Noise_IK_25519_ChaChaPoly_SHA256, and ML-KEM-768 in its payloads: the initiator sends a
// fresh encapsulation key, the responder encapsulates to it. The keys of the records are
// derived from both secrets, so that they stay secret as long as one of the two is
// secret. Who is at the other end is proved by X25519 alone. The first byte of a message
// is the version; there is one, and a message of another version is refused. Nothing is
// negotiated but the cipher of the records, inside of the handshake.
//
// The prologue holds the [Terms]. If the two ends do not mean the same, the handshake
// fails. So an Open that is passed on as one of another mapping, another client or
// another protocol is an error, and so is an Opened of another stream.
//
// The first message can be read by nobody who does not have the responder's static key,
// but whoever gets that key later can read it: it holds nothing secret. It can be sent
// again by whoever carries it. So it holds a counter, and a responder remembers which
// counters of a peer it has seen.
//
// # Going on
//
// A whole handshake is nearly all that a short connection costs. So two agents that had one
// make the keys of further streams of what it gave, for a minute: a message with an
// authenticator each way, and random bytes of both ends. What holds for a whole handshake
// holds here too (terms, counter, trust in the peer's key), but for forward secrecy, which
// is by the minute, and notes, of which there are none.
//
// # Who knows what
//
// This package does not know whose a key is, nor how a key got here. The caller of
// Respond is given the peer's public key, and says whether it is that of the client
// that the Terms name.
package seal
