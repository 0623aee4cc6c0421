package agent

import (
	"github.com/tunnox-net/tunnox/wire"
)

// claimed takes over the new id of the agent's client, if the refusal says that a user
// has claimed the client. The forwarder is verified, and tells the id only after the
// agent has proved its credential. The credential stays the same. claimed reports
// whether to log in again at once.
func (a *Agent) claimed(refusal *wire.Refusal, server string) bool {
	if refusal.Code != wire.Claimed || refusal.ClientID <= 0 {
		return false
	}
	a.idMu.Lock()
	defer a.idMu.Unlock()
	if refusal.ClientID == a.identity.ClientID {
		return false // another session got the same notice earlier, and has changed the id
	}
	was := a.identity.ClientID
	a.identity.ClientID = refusal.ClientID
	a.log.Info("this client was claimed and has another id now", "was", was, "client", refusal.ClientID)
	if err := a.state.Save(a.identity, server); err != nil {
		// The agent works without the file; at the next start the server tells the id
		// again.
		a.log.Warn("the new id could not be saved", "error", err)
	}
	return true
}
