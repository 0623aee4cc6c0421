// Package control connects a forwarder with the control plane: the gRPC State service
// and its client, the lookup of clients' views over three levels, and the identities
// that nodes prove to the control plane and to each other.
//
// A forwarder has no database credentials. It reads what it needs about a client from
// its own memory, or else from the read model, or else from the control plane
// ([Lookup]). A change, such as an anonymous registration or a command of an agent, is
// sent to the control plane at once and decided from the log.
//
// An [Authority] signs the certificates of nodes. [Server] answers nobody without such
// a certificate, except a new node, which gets its first certificate for the cluster's
// [JoinToken] and nothing else: connections without a certificate are not connected to
// the State service at all.
//
// Its limits: it knows the domain and gRPC. Records, read models and secrets are behind
// the interfaces [Log], [Views], [Executor] and [Vault].
package control
