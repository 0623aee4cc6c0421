// Package webhooks tests that webhooks miss nothing, with the real programs: the
// control plane that delivers, and the embedded server, are killed while events happen
// and messages are under way.
//
// Its duty: the receiver has got every event that the audit shows at the end, under one
// id and with a valid signature.
//
// Its limit: the answers of receivers are tested in package webhook.
package webhooks
