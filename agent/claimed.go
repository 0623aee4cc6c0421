package agent

import (
	"github.com/tunnox-net/tunnox/wire"
)

// claimed takes over the id that a user's claim has given this agent's client,
// when that is what the refusal says. The forwarder is verified and tells it only
// to who has proved the credential, which stays the same. It reports whether to
// log in again at once.
func (a *Agent) claimed(refusal *wire.Refusal, server string) bool {
	if refusal.Code != wire.Claimed || refusal.ClientID <= 0 {
		return false
	}
	a.idMu.Lock()
	defer a.idMu.Unlock()
	if refusal.ClientID == a.identity.ClientID {
		return false // another session was told before, and has changed it
	}
	was := a.identity.ClientID
	a.identity.ClientID = refusal.ClientID
	a.log.Info("this client was claimed and goes on under another id", "was", was, "client", refusal.ClientID)
	if err := a.state.Save(a.identity, server); err != nil {
		// It works all the same; at the next start the server tells it once more.
		a.log.Warn("the new id could not be saved", "error", err)
	}
	return true
}
