// Package webhooktest is the suite that every [webhook.Store] must pass.
package webhooktest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/webhook"
)

var at = time.Date(2026, time.January, 31, 23, 40, 30, 0, time.UTC)

const ann, bob = int64(100000001), int64(100000002)

// suite is one store under test.
type suite struct {
	*testing.T
	webhook.Store
}

// Run runs the suite. open makes an empty store for each test.
func Run(t *testing.T, open func(t testing.TB) webhook.Store) {
	for name, test := range map[string]func(*suite){
		"the checkpoint begins once":                             begins,
		"what records come to is written with the checkpoint":    advances,
		"of two who advance one wins":                            contested,
		"the oldest that is due comes first":                     oldest,
		"an attempt is noted once":                               noted,
		"a webhook that rests is sent nothing":                   rests,
		"a disabled webhook is sent nothing until it is enabled": disabled,
		"an attempt and a new delivery at the same moment":       meanwhile,
		"a change and a test of a webhook at the same moment":    changed,
		"a delivery is sent again by hand":                       byHand,
		"a deleted webhook leaves nothing":                       ends,
		"the newest deliveries are listed first":                 lists,
		"what is kept no longer is deleted and the rest stays":   prunes,
		"a webhook that is sent more than it takes is found":     crowded,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{t, open(t)}) })
	}
}

func endpoint(id, owner int64) webhook.Endpoint {
	return webhook.Endpoint{Webhook: domain.Webhook{ID: id, UserID: owner, URL: "https://example.org/hook", Events: []string{"mapping_*"}, Generation: 1,
		CreatedAt: at, UpdatedAt: at}, OwnerAdmin: true}
}

// fresh gives a new delivery, as it follows from a record.
func fresh(id int64, position domain.Position) webhook.Delivery {
	return webhook.Delivery{Webhook: id, Message: fmt.Sprint("message ", position), Position: position, Event: "mapping_created"}
}

// given adds waiting deliveries for webhook 7 of ann, at positions 1 and up.
func (s *suite) given(deliveries int) {
	s.Helper()
	s.must(s.Begin(ctx, 0, []webhook.Endpoint{endpoint(7, ann)}))
	a := webhook.Advance{To: domain.Position(deliveries), Now: at}
	for i := range deliveries {
		a.Deliveries = append(a.Deliveries, fresh(7, domain.Position(i+1)))
	}
	s.must(s.Advance(ctx, a))
}

var ctx = context.Background()

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// next gives the position of the delivery that is to be sent to webhook 7, 0 for none.
func (s *suite) next(now time.Time) (webhook.Due, domain.Position) {
	s.Helper()
	due, ok, err := s.Next(ctx, 7, now)
	s.must(err)
	if !ok {
		return due, 0
	}
	return due, due.Position
}

func (s *suite) wantNext(now time.Time, want domain.Position) webhook.Due {
	s.Helper()
	due, got := s.next(now)
	if got != want {
		s.Fatalf("at %v the next is %d, want %d", now.Sub(at), got, want)
	}
	return due
}

func (s *suite) wantReady(now time.Time, want ...webhook.Ready) {
	s.Helper()
	got, err := s.Ready(ctx, now, 10)
	s.must(err)
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		s.Fatalf("at %v ready are %v, want %v", now.Sub(at), got, want)
	}
}

// finish stores the result of an attempt.
func (s *suite) finish(due webhook.Due, status webhook.Status, next time.Time, f webhook.Failing) {
	s.Helper()
	o := webhook.Outcome{Delivery: due.Delivery, Failing: f}
	o.Attempts++
	o.Status, o.NextAt, o.Attempted, o.Took, o.Code, o.Error = status, next, at, 1500*time.Millisecond, 500, "it answered 500"
	s.must(s.Finish(ctx, o))
}

func begins(s *suite) {
	if _, began, _, err := s.Load(ctx); err != nil || began {
		s.Fatalf("an empty store has begun: %v, %v", began, err)
	}
	one, two := endpoint(7, ann), endpoint(8, bob)
	s.must(s.Begin(ctx, 5, []webhook.Endpoint{one, two}))
	s.must(s.Begin(ctx, 9, []webhook.Endpoint{endpoint(9, bob)}))
	position, began, endpoints, err := s.Load(ctx)
	if err != nil || !began || position != 5 || !reflect.DeepEqual(endpoints, []webhook.Endpoint{one, two}) {
		s.Fatalf("loads %d, %v, %+v, %v", position, began, endpoints, err)
	}
}

func advances(s *suite) {
	s.given(2)
	changed := endpoint(7, ann)
	changed.URL = "https://example.org/other"
	s.must(s.Advance(ctx, webhook.Advance{From: 2, To: 4, Now: at, Endpoints: []webhook.Endpoint{changed, endpoint(8, bob)},
		Deliveries: []webhook.Delivery{fresh(7, 3), fresh(8, 3)}}))
	position, _, endpoints, err := s.Load(ctx)
	if err != nil || position != 4 || !reflect.DeepEqual(endpoints, []webhook.Endpoint{changed, endpoint(8, bob)}) {
		s.Fatalf("loads %d, %+v, %v", position, endpoints, err)
	}
	s.wantReady(at.Add(-time.Second))
	s.wantReady(at, webhook.Ready{Webhook: 7, Owner: ann}, webhook.Ready{Webhook: 8, Owner: bob})
	due := s.wantNext(at, 1)
	want := webhook.Delivery{ID: due.ID, Webhook: 7, Message: "message 1", Position: 1, Event: "mapping_created", Status: webhook.Pending, Created: at, NextAt: at}
	if due.ID == 0 || due.Delivery != want || !reflect.DeepEqual(due.Endpoint, changed) || due.Failing != (webhook.Failing{}) {
		s.Fatalf("next is %+v, want %+v of %+v", due, want, changed)
	}
	if n, err := s.Waiting(ctx); err != nil || n != 4 {
		s.Fatalf("%d wait, %v; want 4", n, err)
	}
}

func contested(s *suite) {
	s.given(1)
	moved := make(chan error, 8)
	var all sync.WaitGroup
	for range cap(moved) {
		all.Go(func() {
			moved <- s.Advance(ctx, webhook.Advance{From: 1, To: 2, Now: at, Deliveries: []webhook.Delivery{fresh(7, 2)}})
		})
	}
	all.Wait()
	close(moved)
	won := 0
	for err := range moved {
		if err == nil {
			won++
		} else if !errors.Is(err, webhook.ErrMoved) {
			s.Error(err)
		}
	}
	if list, err := s.List(ctx, 7, 0, 10); won != 1 || len(list) != 2 || err != nil {
		s.Fatalf("%d advanced, %d deliveries, %v; want 1 and 2", won, len(list), err)
	}
}

func oldest(s *suite) {
	s.given(3)
	due := s.wantNext(at, 1)
	s.finish(due, webhook.Pending, at.Add(time.Minute), webhook.Failing{Times: 1, Since: at})
	second := s.wantNext(at, 2)
	if second.Failing != (webhook.Failing{Times: 1, Since: at}) {
		s.Fatalf("failing %+v", second.Failing)
	}
	s.finish(second, webhook.Delivered, at, webhook.Failing{})
	s.wantNext(at.Add(2*time.Minute), 1) // before the third delivery
	third := s.wantNext(at, 3)
	s.finish(third, webhook.Delivered, at, webhook.Failing{})
	s.wantNext(at, 0)
	s.wantReady(at)
	s.wantReady(at.Add(time.Minute), webhook.Ready{Webhook: 7, Owner: ann})
	again := s.wantNext(at.Add(time.Minute), 1)
	if again.Attempts != 1 || again.Code != 500 || again.Error != "it answered 500" || again.Took != 1500*time.Millisecond || !again.Attempted.Equal(at) {
		s.Fatalf("the second attempt is of %+v", again.Delivery)
	}
	s.finish(again, webhook.Failed, time.Time{}, webhook.Failing{})
	s.wantNext(at.Add(time.Hour), 0)
	s.wantReady(at.Add(time.Hour))
}

func noted(s *suite) {
	s.given(1)
	due := s.wantNext(at, 1)
	o := webhook.Outcome{Delivery: due.Delivery}
	o.Attempts++
	o.Status = webhook.Delivered
	s.must(s.Finish(ctx, o))
	o.Status = webhook.Failed
	if err := s.Finish(ctx, o); !errors.Is(err, webhook.ErrMoved) {
		s.Fatalf("the same attempt again: %v", err)
	}
	if list, err := s.List(ctx, 7, 0, 10); err != nil || list[0].Status != webhook.Delivered || list[0].Attempts != 1 {
		s.Fatalf("%+v, %v", list, err)
	}
}

func rests(s *suite) {
	s.given(2)
	s.finish(s.wantNext(at, 1), webhook.Pending, at.Add(time.Second), webhook.Failing{Times: 3, Since: at, Rest: at.Add(time.Minute)})
	s.wantReady(at.Add(time.Second))
	s.wantNext(at.Add(time.Second), 0)
	s.must(s.Advance(ctx, webhook.Advance{From: 2, To: 3, Now: at.Add(2 * time.Second), Deliveries: []webhook.Delivery{fresh(7, 3)}}))
	s.wantReady(at.Add(2 * time.Second))
	s.wantReady(at.Add(time.Minute), webhook.Ready{Webhook: 7, Owner: ann})
	s.wantNext(at.Add(time.Minute), 1)
	// A change of the webhook makes it due again.
	s.must(s.Advance(ctx, webhook.Advance{From: 3, To: 4, Now: at.Add(3 * time.Second), Endpoints: []webhook.Endpoint{endpoint(7, ann)}}))
	if due := s.wantNext(at.Add(3*time.Second), 1); due.Failing != (webhook.Failing{}) {
		s.Fatalf("still failing: %+v", due.Failing)
	}
}

func disabled(s *suite) {
	s.given(1)
	off := endpoint(7, ann)
	off.Disabled = true
	s.must(s.Advance(ctx, webhook.Advance{From: 1, To: 2, Now: at, Endpoints: []webhook.Endpoint{off}}))
	s.wantReady(at)
	s.wantNext(at, 0)
	s.must(s.Advance(ctx, webhook.Advance{From: 2, To: 3, Now: at, Endpoints: []webhook.Endpoint{endpoint(7, ann)}}))
	s.wantReady(at, webhook.Ready{Webhook: 7, Owner: ann})
	s.wantNext(at, 1)
}

// meanwhile: a delivery that comes while an attempt is stored, or after a search that
// found nothing, is sent without waiting for another one.
func meanwhile(s *suite) {
	s.given(1)
	const rounds = 50
	var position domain.Position = 1
	for range rounds {
		due, at1 := s.next(at)
		if at1 == 0 {
			s.Fatalf("nothing is due at position %d", position)
		}
		var both sync.WaitGroup
		both.Go(func() {
			if err := s.Advance(ctx, webhook.Advance{From: position, To: position + 1, Now: at, Deliveries: []webhook.Delivery{fresh(7, position+1)}}); err != nil {
				s.Error(err)
			}
		})
		both.Go(func() {
			o := webhook.Outcome{Delivery: due.Delivery}
			o.Attempts++
			o.Status = webhook.Delivered
			if err := s.Finish(ctx, o); err != nil {
				s.Error(err)
			}
			if _, _, err := s.Next(ctx, 7, at); err != nil {
				s.Error(err)
			}
		})
		both.Wait()
		position++
		s.wantReady(at, webhook.Ready{Webhook: 7, Owner: ann})
	}
}

// changed: a user may make or change a webhook and test it at once, before the
// checkpoint reaches the change. The test is sent then.
func changed(s *suite) {
	s.must(s.Begin(ctx, 0, nil))
	const rounds = 100
	for i := range domain.Position(rounds) {
		id := int64(7 + i/2) // every other time it is there already
		var both sync.WaitGroup
		both.Go(func() {
			if err := s.Advance(ctx, webhook.Advance{From: i, To: i + 1, Now: at, Endpoints: []webhook.Endpoint{endpoint(id, ann)}}); err != nil {
				s.Error(err)
			}
		})
		both.Go(func() {
			if _, err := s.Add(ctx, webhook.Delivery{Webhook: id, Message: "test", Event: webhook.TestEvent, Created: at}); err != nil {
				s.Error(err)
			}
		})
		both.Wait()
		s.wantReady(at, webhook.Ready{Webhook: id, Owner: ann})
		due, ok, err := s.Next(ctx, id, at)
		if err != nil || !ok {
			s.Fatalf("round %d: %v, %v", i, ok, err)
		}
		s.finish(due, webhook.Delivered, at, webhook.Failing{})
	}
}

func byHand(s *suite) {
	s.given(1)
	s.finish(s.wantNext(at, 1), webhook.Failed, time.Time{}, webhook.Failing{Times: 9, Since: at, Rest: at.Add(time.Hour)})
	list, err := s.List(ctx, 7, 0, 10)
	s.must(err)
	later := at.Add(time.Minute)
	d, err := s.Redeliver(ctx, 7, list[0].ID, later)
	if err != nil || d.Status != webhook.Pending || d.Attempts != 1 || d.Message != "message 1" {
		s.Fatalf("%+v, %v", d, err)
	}
	s.wantReady(later, webhook.Ready{Webhook: 7, Owner: ann})
	s.wantNext(later, 1)
	for _, of := range [][2]int64{{8, list[0].ID}, {7, list[0].ID + 1}} {
		if _, err := s.Redeliver(ctx, of[0], of[1], later); !errors.Is(err, webhook.ErrNone) {
			s.Fatalf("redeliver %v: %v", of, err)
		}
	}
	test, err := s.Add(ctx, webhook.Delivery{Webhook: 7, Message: "test", Event: webhook.TestEvent, Created: later})
	if err != nil || test.ID <= list[0].ID || test.Status != webhook.Pending || !test.NextAt.Equal(later) {
		s.Fatalf("%+v, %v", test, err)
	}
	// A delivery for a webhook that the checkpoint has not reached yet is sent when the
	// checkpoint has reached it.
	_, err = s.Add(ctx, webhook.Delivery{Webhook: 8, Message: "test", Event: webhook.TestEvent, Created: later})
	s.must(err)
	s.must(s.Advance(ctx, webhook.Advance{From: 1, To: 2, Now: later, Endpoints: []webhook.Endpoint{endpoint(8, bob)}}))
	if due, ok, err := s.Next(ctx, 8, later); !ok || err != nil || due.Message != "test" {
		s.Fatalf("%+v, %v, %v", due, ok, err)
	}
}

func ends(s *suite) {
	s.given(2)
	s.must(s.Advance(ctx, webhook.Advance{From: 2, To: 3, Now: at, Ended: []int64{7}}))
	s.wantReady(at)
	s.wantNext(at, 0)
	if list, err := s.List(ctx, 7, 0, 10); err != nil || len(list) != 0 {
		s.Fatalf("%+v, %v", list, err)
	}
	if _, _, endpoints, err := s.Load(ctx); err != nil || len(endpoints) != 0 {
		s.Fatalf("%+v, %v", endpoints, err)
	}
}

func lists(s *suite) {
	s.given(5)
	var positions []domain.Position
	for before := int64(0); ; {
		page, err := s.List(ctx, 7, before, 2)
		s.must(err)
		if len(page) == 0 {
			break
		}
		for _, d := range page {
			positions = append(positions, d.Position)
			before = d.ID
		}
	}
	if want := []domain.Position{5, 4, 3, 2, 1}; !reflect.DeepEqual(positions, want) {
		s.Fatalf("lists %v, want %v", positions, want)
	}
}

func prunes(s *suite) {
	s.given(webhook.KeptMost + 3)
	for range webhook.KeptMost + 2 {
		due, _ := s.next(at)
		s.finish(due, webhook.Delivered, at, webhook.Failing{})
	}
	s.must(s.Prune(ctx, at.Add(time.Hour)))
	all, err := s.List(ctx, 7, 0, 2*webhook.KeptMost)
	s.must(err)
	if len(all) != webhook.KeptMost+1 || all[0].Status != webhook.Pending || all[len(all)-1].Position != 3 {
		s.Fatalf("%d are left, the last at %d", len(all), all[len(all)-1].Position)
	}
	s.must(s.Prune(ctx, at.Add(webhook.KeptFor+time.Second)))
	if all, err = s.List(ctx, 7, 0, 10); err != nil || len(all) != 0 {
		s.Fatalf("after a week %d are left, %v", len(all), err)
	}
	orphan := webhook.Delivery{Webhook: 99, Message: "x", Event: webhook.TestEvent, Created: at}
	_, err = s.Add(ctx, orphan)
	s.must(err)
	s.must(s.Prune(ctx, at.Add(time.Minute)))
	if all, err = s.List(ctx, 99, 0, 10); err != nil || len(all) != 1 {
		s.Fatalf("%d are left, %v; its webhook may yet come", len(all), err)
	}
	s.must(s.Prune(ctx, at.Add(2*time.Hour)))
	if all, err = s.List(ctx, 99, 0, 10); err != nil || len(all) != 0 {
		s.Fatalf("%d are left, %v", len(all), err)
	}
}

func crowded(s *suite) {
	s.given(5)
	for most, want := range map[int64]int{4: 1, 5: 0} {
		if got, err := s.Crowded(ctx, most); err != nil || len(got) != want {
			s.Fatalf("more than %d wait for %v, %v", most, got, err)
		}
	}
}
