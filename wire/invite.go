package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
)

// invitePrefix makes an invitation's code recognisable, as codePrefix does for auth codes.
const invitePrefix = "tnxj_"

const (
	inviteVersion  = 1
	inviteChecksum = 4                    // bytes of SHA-256 over what is before them
	inviteBearer   = 8 + InviteSecretSize // bytes that go over a session
	maxInvitePins  = 4
	maxInviteHosts = 8
	maxInviteHost  = 255 // bytes of one address, host:port
)

// InviteSecretSize is how many random bytes a code has.
const InviteSecretSize = 16

// PinSize is the length of a pin: SHA-256 of a server's public key.
const PinSize = sha256.Size

// Errors of reading an invitation's code; test with errors.Is.
var (
	// ErrNoInvite means that a text is no invitation at all.
	ErrNoInvite = errors.New(`the code of an invitation begins with "tnxj_"`)
	// ErrDamagedInvite means that a part of an invitation is missing or changed.
	ErrDamagedInvite = errors.New("the code of the invitation is damaged: a part of it is missing or was changed on the way; copy all of it once more")
	// ErrNewerInvite means that a newer version of Tunnox made the invitation.
	ErrNewerInvite = errors.New("the code of the invitation is from a newer server: update this program")
)

// Invite is the code of an invitation: all that a machine needs to become a client,
// in one word. Whoever has it may use it.
type Invite struct {
	ID      int64
	Secret  []byte   // InviteSecretSize bytes
	Servers []string // where agents connect, host:port, the best first
	Pins    [][]byte // of the server's key, PinSize bytes each; none: the system's roots vouch for it
}

// Code gives the word for people.
func (i Invite) Code() (string, error) {
	b := append([]byte{inviteVersion}, i.Bearer()...)
	if i.ID <= 0 || len(i.Secret) != InviteSecretSize || len(i.Servers) == 0 || len(i.Servers) > maxInviteHosts || len(i.Pins) > maxInvitePins {
		return "", errors.New("make an invitation's code: it lacks something, or has too much of it")
	}
	b = append(b, byte(len(i.Pins)))
	for _, pin := range i.Pins {
		if len(pin) != PinSize {
			return "", fmt.Errorf("make an invitation's code: a pin has %d bytes", len(pin))
		}
		b = append(b, pin...)
	}
	b = append(b, byte(len(i.Servers)))
	for _, server := range i.Servers {
		if !isAddress(server) {
			return "", fmt.Errorf("make an invitation's code: %q is no host:port", server)
		}
		b = append(append(b, byte(len(server))), server...)
	}
	sum := sha256.Sum256(b)
	return invitePrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:inviteChecksum]...)), nil
}

// Bearer is the part that goes over a session: which invitation, and the proof of it.
func (i Invite) Bearer() []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(i.ID)), i.Secret...)
}

// ParseBearer reads what Bearer gave.
func ParseBearer(b []byte) (id int64, secret []byte, ok bool) {
	if len(b) != inviteBearer {
		return 0, nil, false
	}
	id = int64(binary.BigEndian.Uint64(b))
	return id, b[8:], id > 0
}

// ParseInvite reads a code, and ignores blanks and line breaks in it. Its errors tell a
// damaged code from a text that is no code. Whether the code is still good, only the
// server knows.
func ParseInvite(text string) (Invite, error) {
	encoded, ok := strings.CutPrefix(strings.Join(strings.Fields(text), ""), invitePrefix)
	if !ok {
		return Invite{}, ErrNoInvite
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < 1+inviteBearer+2+inviteChecksum {
		return Invite{}, ErrDamagedInvite
	}
	b, check := b[:len(b)-inviteChecksum], b[len(b)-inviteChecksum:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:inviteChecksum], check) {
		return Invite{}, ErrDamagedInvite
	}
	if b[0] != inviteVersion {
		return Invite{}, ErrNewerInvite
	}
	var i Invite
	if i.ID, i.Secret, ok = ParseBearer(b[1 : 1+inviteBearer]); !ok {
		return Invite{}, ErrDamagedInvite
	}
	return i, i.readPlaces(b[1+inviteBearer:])
}

// readPlaces reads pins and servers, to the last byte.
func (i *Invite) readPlaces(b []byte) error {
	pins := int(b[0])
	if b = b[1:]; pins > maxInvitePins || len(b) < pins*PinSize+1 {
		return ErrDamagedInvite
	}
	for range pins {
		i.Pins, b = append(i.Pins, b[:PinSize]), b[PinSize:]
	}
	servers := int(b[0])
	b = b[1:]
	for range servers {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return ErrDamagedInvite
		}
		server := string(b[1 : 1+int(b[0])])
		if !isAddress(server) {
			return ErrDamagedInvite
		}
		i.Servers, b = append(i.Servers, server), b[1+len(server):]
	}
	if len(b) != 0 || servers == 0 || servers > maxInviteHosts {
		return ErrDamagedInvite
	}
	return nil
}

// isAddress accepts host:port without what would move a cursor: it is printed.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && port != "" && len(s) <= maxInviteHost &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
