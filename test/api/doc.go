// Package api tests the whole REST API over the real programs, in both forms:
// embedded on SQLite, and as a cluster of two control planes and two forwarders over
// Postgres and Redis.
//
// Its duty: every operation of the OpenAPI document is called through the client
// that was generated from it, and what is true of many operations (a repeat under
// a key is harmless, a stale version is refused, a dry run writes nothing, pages
// are whole) is checked of every operation that the document says it of. An
// operation that is new fails here until it is told how to be called.
//
// Its limit: what one operation means is tested in package httpapi.
package api
