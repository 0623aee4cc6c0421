package domain

import (
	"encoding/binary"
)

// Registration is what an agent asks for that has no identity but its key: to be an
// anonymous client, or with an invitation a client of who invited.
type Registration struct {
	PublicKey []byte // whose possession the agent has proved
	Name      string // for people
	Source    string // the agent's address
	Invite    []byte // the invitation's id and secret; nil: anonymous
}

// Redeem gives the command that the invitation stands for. A nonsensical one is
// refused like one that nobody has made.
func (r Registration) Redeem() (RedeemInvite, error) {
	if len(r.Invite) != 8+InviteSecretLength {
		return RedeemInvite{}, refuseAt(CodeInviteNotFound, "There is no invitation with this code.", "code")
	}
	id := int64(binary.BigEndian.Uint64(r.Invite))
	return RedeemInvite{ID: id, Hash: HashInvite(id, r.Invite[8:]), Name: r.Name, PublicKey: r.PublicKey}, nil
}

// Invited gives the client that a redemption came to, also when the key had redeemed
// the invitation before.
func Invited(r Receipt, publicKey []byte) (clientID int64, ok bool) {
	i, ok := r.State.(*Invite)
	if !ok || i.ClientOf(publicKey) == 0 {
		return 0, false
	}
	return i.ClientOf(publicKey), true
}
