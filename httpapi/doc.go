// Package httpapi speaks REST: it turns requests into commands of package
// domain and read models into answers.
//
// Its duty ends at the seams it declares: commands go to an [Executor], single
// resources and lists come from a [Reader], the log itself from a [History],
// and whether a client is connected from a [Presence]. It holds no state that a
// restart would lose.
//
// What every route keeps to:
//
//   - A write answers from the receipt of its command, never from a read model,
//     with the position it was written at (X-Position) and the version it made
//     (ETag). If-Match guards it, Idempotency-Key makes a repeat harmless.
//   - A read that names a position (Min-Position) is never answered from before
//     it: the read model is waited for, then a single resource is folded from
//     the log and a list is refused with 503.
//   - A fault is application/problem+json (RFC 9457) with a code for machines
//     and every fault at its place. What was sent is never echoed back.
//   - Nothing below /api/v1 is answered without a key.
//
// [New] makes the handler, [NewServer] the server to run it in. Types such as
// [IDPath] and [WriteAnswer] are exported because huma sees exported fields
// only; they are for this package.
package httpapi
