// Package certificates tests that public hosts get their certificates from an authority
// that speaks ACME, with the built programs and a real authority.
package certificates
