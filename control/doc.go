// Package control is what a forwarder has of the control plane: the gRPC State
// service and its client, the lookup of clients' views over three levels, and
// the identities with which nodes prove themselves to it and to each other.
//
// A forwarder has no database credentials. What it must know of a client it
// takes from its own memory, then from the read model, then from here ([Lookup]).
// What changes something, an anonymous registration or a command of an agent,
// goes here at once and is decided from the log.
//
// An [Authority] signs what nodes present. Nobody gets a word out of [Server]
// without a certificate of it, except a new node, which gets a first certificate
// for the cluster's [JoinToken] and nothing else: connections without a
// certificate are not connected to the State service at all.
//
// Its limits: it knows the domain and gRPC. Where records, read models and
// secrets are kept is behind the seams [Log], [Views], [Executor] and [Vault].
package control
