package eventstore_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// After a report that another process appended nobody waits for the next poll, and a
// false report moves nobody.
func TestANudgeSparesTheWaitForThePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s eventstore.Signal
		var head domain.Position
		polls := 0
		done := make(chan error, 1)
		began := time.Now()
		go func() {
			done <- s.Wait(context.Background(), 0, nil, func(context.Context) (domain.Position, error) {
				polls++
				return head, nil
			})
		}()
		synctest.Wait()
		s.Nudge() // nothing was appended
		synctest.Wait()
		if polls != 1 {
			t.Errorf("%d polls", polls)
		}
		head = 1
		s.Nudge()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		if s.Reached() != 1 {
			t.Errorf("reached %d", s.Reached())
		}
	})
}
