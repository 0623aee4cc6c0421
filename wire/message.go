package wire

import (
	"fmt"
	"math"
	"time"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// RefusedMessage is the Refused that tells err to a peer: the Refusal or Code in
// it, or Internal without err's own text.
func RefusedMessage(err error) *wirepb.Control {
	r := refusalOf(err)
	seconds := min(int64(math.Ceil(r.RetryAfter.Seconds())), math.MaxUint32)
	return &wirepb.Control{Message: &wirepb.Control_Refused{Refused: &wirepb.Refused{
		Code: string(r.Code), Message: clip(r.Message, MaxHandshake/4),
		RetryAfterSeconds: uint32(max(seconds, 0)), Permanent: r.Permanent, ClientId: r.ClientID,
	}}}
}

// RefusalFrom is the Refusal that a Refused message tells.
func RefusalFrom(m *wirepb.Refused) *Refusal {
	r := Refuse(Code(m.GetCode()))
	if m.GetMessage() != "" {
		r.Message = m.GetMessage()
	}
	r.RetryAfter = time.Duration(m.GetRetryAfterSeconds()) * time.Second
	r.Permanent = m.GetPermanent()
	r.ClientID = m.GetClientId()
	return r
}

// GoAwayMessage is the GoAway with the code and its sentence.
func GoAwayMessage(code Code) *wirepb.Control {
	return &wirepb.Control{Message: &wirepb.Control_GoAway{GoAway: &wirepb.GoAway{
		Code: string(code), Message: code.Sentence(),
	}}}
}

// Unexpected is the error for a control message that may not come now.
func Unexpected(m *wirepb.Control, wanted string) error {
	return fmt.Errorf("got %T where %s belongs: %w", m.GetMessage(), wanted, Malformed)
}
