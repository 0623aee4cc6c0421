package agent

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"fmt"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// beginShare creates a share, and holds the mappings that were made of an earlier share
// of the same service.
func (t *tunnel) beginShare(ctx context.Context) error {
	if before := t.wish.Resume; before != nil && before.ShareID != 0 {
		t.share = &wirepb.Share{ShareId: before.ShareID, Code: before.Code, Expires: before.Expires.Unix()}
		t.wish.Resume = nil // after this, a new share is created
		t.shareID.Store(t.share.GetShareId())
		return nil
	}
	wish := map[string]any{}
	for name, value := range t.wish.Parts {
		wish[name] = value
	}
	if !t.wish.Keep {
		wish["held_by"] = "target"
	}
	object, err := json.Marshal(wish)
	if err != nil {
		return err
	}
	r, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_CreateShare{CreateShare: &wirepb.CreateShare{
		Protocol: t.wish.Protocol, Parts: object, Random: drawShareCode(), MaxUses: t.wish.Uses, ExpiresSeconds: t.wish.Seconds}}})
	if err != nil {
		return err
	}
	t.share = r.GetShare()
	t.shareID.Store(t.share.GetShareId())
	for {
		left, err := t.a.tunnels.leftBehind(ctx, t, t.mine)
		if err != nil || left == nil {
			return err
		}
		t.adopted = append(t.adopted, left.GetMappingId())
	}
}

// mine reports whether a mapping was made of a share of this service, now or before the
// program was restarted.
func (t *tunnel) mine(m *wirepb.Mapping) bool {
	return t.share != nil && m.GetShareId() != 0 && m.GetTargetClientId() == t.a.identityID() && t.fits(m)
}

// drawShareCode draws the random part of a share code: 100 bits in base 32.
func drawShareCode() string {
	var b [13]byte
	rand.Read(b[:]) // never fails
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])[:20]
}

// redeem makes a mapping from a share code. It first finds out whether the listener can
// be opened, because the code may be valid for one use only.
func (t *tunnel) redeem(ctx context.Context) error {
	me := t.a.identityID()
	share := shareOf(t.wish.Code)
	host, port := t.listener()
	left, err := t.a.tunnels.leftBehind(ctx, t, func(m *wirepb.Mapping) bool {
		return share != 0 && m.GetShareId() == share && m.GetSourceClientId() == me && holder(m) != "" &&
			(port == 0 || m.GetLocalPort() == uint32(port) && m.GetLocalHost() == host)
	})
	if err != nil {
		return err
	}
	if left != nil {
		t.mapping = left
		return nil
	}
	r, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_RedeemShare{RedeemShare: &wirepb.RedeemShare{Code: t.wish.Code, Look: true}}})
	if err != nil {
		return err
	}
	if len(r.GetMappings()) != 1 {
		return &refusedHere{"internal", "The server did not send the service of the code."}
	}
	leads := r.GetMappings()[0]
	if _, ok := listens(leads.GetProtocol()); !ok {
		return &refusedHere{string(wire.ProtocolUnavailable), fmt.Sprintf("This agent does not carry %s.", leads.GetProtocol())}
	}
	if port == 0 {
		port = int(leads.GetTargetPort())
		if canListen(leads.GetProtocol(), host, port) != nil {
			if port, err = anyFree(host); err != nil {
				return err
			}
		}
	} else if err := canListen(leads.GetProtocol(), host, port); err != nil {
		return err
	}
	r, err = t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_RedeemShare{RedeemShare: &wirepb.RedeemShare{
		Code: t.wish.Code, Name: t.text("name"), LocalHost: host, LocalPort: uint32(port), Held: !t.wish.Keep}}})
	if err != nil {
		return err
	}
	if len(r.GetMappings()) != 1 {
		return &refusedHere{"internal", "The server created a mapping, but did not send its id."}
	}
	t.mapping = r.GetMappings()[0]
	t.a.tunnels.hold(t, t.mapping.GetMappingId())
	return nil
}

// shareOf gives the share of a code, 0 for none. A code begins with the share's number.
func shareOf(code string) int64 {
	var id int64
	if _, err := fmt.Sscanf(code, "%d-", &id); err != nil {
		return 0
	}
	return id
}
