package webhook

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tunnox-net/tunnox/domain"
)

// Log is the log that the deliverer reads.
type Log interface {
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
	// ReadAll gives up to limit records with a position above after, in order.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	// Select gives up to limit records that match the query, in the query's order.
	Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error)
	// Wait returns when the log has records after the position after, or with the
	// context's error.
	Wait(ctx context.Context, after domain.Position) error
}

// book holds the endpoints as of a position. The receivers of a record are decided on
// the state at the record's position, not on the present state. So the result is the
// same whoever decides it, and however late.
type book struct {
	log       Log
	endpoints map[int64]*Endpoint
	owned     map[int64]map[int64]bool // webhooks by owner
	all       map[int64]bool           // webhooks that ask for everything
	changed   map[int64]bool           // since the last advance; an endpoint that is gone has ended
}

func newBook(log Log, endpoints []Endpoint) *book {
	b := &book{log: log, endpoints: map[int64]*Endpoint{}, owned: map[int64]map[int64]bool{}, all: map[int64]bool{}, changed: map[int64]bool{}}
	for i := range endpoints {
		b.put(&endpoints[i])
	}
	return b
}

func (b *book) put(e *Endpoint) {
	b.endpoints[e.ID] = e
	if b.owned[e.UserID] == nil {
		b.owned[e.UserID] = map[int64]bool{}
	}
	b.owned[e.UserID][e.ID] = true
	if e.All {
		b.all[e.ID] = true
	} else {
		delete(b.all, e.ID)
	}
}

func (b *book) drop(e *Endpoint) {
	delete(b.endpoints, e.ID)
	delete(b.owned[e.UserID], e.ID)
	if len(b.owned[e.UserID]) == 0 {
		delete(b.owned, e.UserID)
	}
	delete(b.all, e.ID)
}

// apply applies a record, and gives the deliveries that follow from it. Because of the
// order, a webhook gets the event of its own creation, and not that of its own
// deletion.
func (b *book) apply(ctx context.Context, r domain.Record) ([]Delivery, error) {
	var err error
	switch r.Stream.Category() {
	case domain.CategoryWebhook:
		err = b.applyWebhook(ctx, r)
	case domain.CategoryUser:
		err = b.applyUser(r)
	}
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", r.Position, err)
	}
	var deliveries []Delivery
	for _, id := range b.concerned(r.Owner) {
		if e := b.endpoints[id]; e.Active() && e.Sees(r) && e.Wants(r.Name) {
			deliveries = append(deliveries, Delivery{Webhook: id, Message: r.ID.String(), Position: r.Position, Event: r.Name})
		}
	}
	return deliveries, nil
}

// concerned lists the webhooks that may get a record of an account, each once.
func (b *book) concerned(owner int64) []int64 {
	own := b.owned[owner]
	ids := make([]int64, 0, len(own)+len(b.all))
	if owner != 0 {
		ids = slices.AppendSeq(ids, maps.Keys(own))
	}
	for id := range b.all {
		if owner == 0 || !own[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (b *book) applyWebhook(ctx context.Context, r domain.Record) error {
	event, err := r.Event()
	if err != nil {
		return err
	}
	e := b.endpoints[r.Stream.Number()]
	if created, ok := event.(domain.WebhookCreated); ok {
		e = &Endpoint{OwnerAdmin: true} // the operator
		if created.UserID != 0 {
			if e, err = b.ofUser(ctx, created.UserID, r.Position); err != nil {
				return err
			}
		}
	}
	if e == nil {
		return fmt.Errorf("%s began before the checkpoint of the webhooks", r.Stream)
	}
	e.Apply(event, r.Meta.At)
	b.changed[e.ID] = true
	if e.Live() {
		b.put(e)
	} else {
		b.drop(e)
	}
	return nil
}

// ofUser gives an endpoint with the state of its owner as of a position.
func (b *book) ofUser(ctx context.Context, user int64, at domain.Position) (*Endpoint, error) {
	const page = 500
	u := &domain.User{}
	for after := domain.Version(0); ; {
		records, err := b.log.ReadStream(ctx, domain.UserStream(user), after, page)
		if err != nil {
			return nil, err
		}
		more := len(records) == page
		if i := slices.IndexFunc(records, func(r domain.Record) bool { return r.Position > at }); i >= 0 {
			records, more = records[:i], false
		}
		if err := domain.Fold(u, records); err != nil {
			return nil, err
		}
		if !more {
			return &Endpoint{OwnerAdmin: u.Role == domain.RoleAdmin, OwnerDisabled: u.Disabled || !u.Live()}, nil
		}
		after = records[len(records)-1].Version
	}
}

// applyUser applies a change of a user to the rights of the user's webhooks.
func (b *book) applyUser(r domain.Record) error {
	own := b.owned[r.Stream.Number()]
	if len(own) == 0 {
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	for id := range own {
		e := b.endpoints[id]
		switch event := event.(type) {
		case domain.UserRoleSet:
			e.OwnerAdmin = event.Role == domain.RoleAdmin
		case domain.UserDisabled:
			e.OwnerDisabled = true
		case domain.UserEnabled:
			e.OwnerDisabled = false
		default:
			continue
		}
		b.changed[id] = true
	}
	return nil
}

// flush adds the changes since the last flush to an advance.
func (b *book) flush(a *Advance) {
	for _, id := range slices.Sorted(maps.Keys(b.changed)) {
		if e := b.endpoints[id]; e != nil {
			copied := *e
			copied.Events = slices.Clone(e.Events)
			a.Endpoints = append(a.Endpoints, copied)
		} else {
			a.Ended = append(a.Ended, id)
		}
	}
	clear(b.changed)
}
