package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Payload is the message to a receiver.
type Payload struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"` // when the event happened
	Position  domain.Position `json:"position"`  // its place in the log; 0 for a test
	Data      any             `json:"data"`      // the record, in the form of the audit
}

// Reasons to give a delivery up at once: it can never be sent, and others wait behind
// it.
var (
	errHidden  = errors.New("the owner may not see this event any more")
	errMissing = errors.New("the log does not contain this event any more")
	errUnshown = errors.New("this event cannot be shown")
)

// payload makes the body of a delivery. It is made again for every attempt, from the
// record as it can be read then: data that was erased since are not sent.
func (d *Deliverer) payload(ctx context.Context, due Due) ([]byte, error) {
	p := Payload{Type: due.Event, Timestamp: due.Created, Position: due.Position, Data: map[string]int64{"webhook_id": due.Webhook}}
	if due.Position > 0 {
		records, err := d.log.ReadAll(ctx, due.Position-1, 1)
		if err != nil {
			return nil, err
		}
		if len(records) != 1 || records[0].Position != due.Position {
			return nil, errMissing
		}
		if !due.Endpoint.Sees(records[0]) {
			return nil, errHidden
		}
		p.Timestamp = records[0].Meta.At
		if p.Data, err = d.options.Show(records[0], due.Endpoint); err != nil {
			return nil, fmt.Errorf("%w: %w", errUnshown, err)
		}
	}
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(p); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}
