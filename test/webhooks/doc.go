// Package webhooks tests that webhooks miss nothing, over the real programs: the
// control plane that delivers is killed, and the embedded server, while events
// happen and messages are under way.
//
// Its duty: whatever the audit shows in the end, the receiver was told, under one
// id and with a good signature.
//
// Its limit: what a receiver may answer is tested in package webhook.
package webhooks
