// Package api tests the whole REST API with the real programs, in both forms: embedded
// on SQLite, and as a cluster of two control planes and two forwarders over Postgres
// and Redis.
//
// Its duty: every operation of the OpenAPI document is called through the client that
// was generated from it. Promises about many operations (a repeat under a key is
// harmless, a stale version is refused, a dry run writes nothing, pages are whole) are
// checked for every operation for which the document makes them. A new operation fails
// here until the tests know how to call it.
//
// Its limit: the meaning of each operation is tested in package httpapi.
package api
