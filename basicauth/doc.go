// Package basicauth keeps the passwords of visitors at public hosts, and lets a visitor
// who gave one in with a cookie from then on.
//
// A password becomes a key with argon2id (RFC 9106), and what is kept of the key is the
// public half of an Ed25519 key pair made of it. So whoever has the password, and nobody
// who only reads what is kept, can sign a cookie, and every server that has what is kept
// can verify it: servers share no secret for it, and who reads the log, a row or a backup
// can let nobody in. A cookie ends with its password.
//
// Its limit: it neither reads nor writes HTTP, and does not bound how often it is asked
// to derive a key, which costs 19 MiB and some 30 ms each time.
package basicauth
