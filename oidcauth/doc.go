// Package oidcauth lets visitors of public hosts log in at an OpenID provider: it keeps
// the client secrets of mappings sealed, begins and finishes logins at the providers
// (OpenID Connect Core 1.0, authorization code flow with PKCE), and signs the cookies that
// let visitors in from then on.
//
// A secret is sealed with a key that only control planes have, for one issuer and one
// client id, so that whoever reads the log, or copies what is sealed into another mapping,
// learns nothing. The public half of the key that signs cookies stands beside it: every
// server verifies a cookie without asking anybody, and none that serves visitors can make
// one.
//
// Its limit: it neither reads nor writes the visitor's HTTP, and which addresses may be
// dialled for a user's provider is the business of the client that it is given.
package oidcauth
