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

// Payload is what a receiver is sent.
type Payload struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"` // when it happened
	Position  domain.Position `json:"position"`  // its place in the log; 0 for a test
	Data      any             `json:"data"`      // the record, as the audit shows it
}

// Why deliveries are given up at once: what cannot be sent now never can, and
// others wait behind it.
var (
	errHidden  = errors.New("the owner may not see this any more")
	errMissing = errors.New("the log does not have this any more")
	errUnshown = errors.New("this cannot be shown")
)

// payload makes the body of a delivery. It is made anew for every attempt, of the
// record as it can be read then: what was erased meanwhile is not sent.
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
		if p.Data, err = d.options.Show(records[0]); err != nil {
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
