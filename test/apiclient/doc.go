// Package apiclient is the client that oapi-codegen makes of the OpenAPI
// document: what somebody gets who calls the API from Go without knowing us.
//
// Its duty: package test/api calls every operation through it, so that the
// document is true of what the servers do, and can be used by a generator.
// test/generate.sh writes client.gen.go anew. Its limit: it is for tests; nothing
// of ours is meant to call itself.
package apiclient
