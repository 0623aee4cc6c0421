package domain

import (
	"encoding/binary"
)

// Registration is the request of an agent that has a key and no identity. The agent
// becomes an anonymous client or, with an invitation, a client of the inviting user.
type Registration struct {
	PublicKey []byte // the agent has proved to hold the private key
	Name      string // for people
	Source    string // the agent's address
	Invite    []byte // the invitation's id and secret; nil: anonymous
	Reachable bool   // with an invitation: agents of the user's other clients may have connections led there
}

// Redeem gives the command that redeems the invitation. A malformed invitation gets the
// same refusal as an unknown one.
func (r Registration) Redeem() (RedeemInvite, error) {
	if len(r.Invite) != 8+InviteSecretLength {
		return RedeemInvite{}, refuseAt(CodeInviteNotFound, "There is no invitation with this code.", "code")
	}
	id := int64(binary.BigEndian.Uint64(r.Invite))
	c := RedeemInvite{ID: id, Hash: HashInvite(id, r.Invite[8:]), Name: r.Name, PublicKey: r.PublicKey}
	if r.Reachable {
		c.Commands = CommandsAll
	}
	return c, nil
}

// Invited gives the client of a redemption, also when the key had redeemed the
// invitation before.
func Invited(r Receipt, publicKey []byte) (clientID int64, ok bool) {
	i, ok := r.State.(*Invite)
	if !ok || i.ClientOf(publicKey) == 0 {
		return 0, false
	}
	return i.ClientOf(publicKey), true
}
