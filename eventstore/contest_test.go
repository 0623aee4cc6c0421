package eventstore_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
)

// TestOfTwoAtTheSameMomentOneWins lets two control planes do the same thing at the same
// moment, 500 times: redeem a share or an invitation that is good once, claim one
// anonymous client for two users, and take one name for two users.
func TestOfTwoAtTheSameMomentOneWins(t *testing.T) {
	const lanes = 10
	rounds := 50
	if raceEnabled {
		rounds = 5
	}
	eachStore(t, func(t *testing.T, s eventstore.Store) {
		rounds := rounds
		if _, model := s.(*eventstoretest.Memory); model {
			rounds = min(rounds, 5) // this store searches all of its records at every read
		}
		planes := [2]*eventstore.Executor{start(t, s, eventstore.ExecutorOptions{}), start(t, s, eventstore.ExecutorOptions{})}
		var all sync.WaitGroup
		for lane := range lanes {
			all.Go(func() { contest(t, planes, int64(lane), rounds) })
		}
		all.Wait()
	})
}

func contest(t *testing.T, planes [2]*eventstore.Executor, lane int64, rounds int) {
	do := func(c domain.Command) bool {
		if _, err := planes[0].Submit(t.Context(), submission(c)); err != nil {
			t.Errorf("lane %d: %s: %v", lane, c.CommandName(), err)
			return false
		}
		return true
	}
	ann, bob := domain.FirstUserID+2*lane, domain.FirstUserID+2*lane+1
	target, source := domain.FirstClientID+2*lane, domain.FirstClientID+2*lane+1
	name := func(n string) string { return fmt.Sprintf("%s%d", n, lane) }
	key, hash := make([]byte, 32), make([]byte, 32)
	ok := do(domain.CreateUser{ID: ann, Username: name("ann"), Email: name("ann@example.org")}) &&
		do(domain.CreateUser{ID: bob, Username: name("bob"), Email: name("bob@example.org")}) &&
		do(domain.CreateClient{ID: target, UserID: ann, Name: "t", PublicKey: key}) &&
		do(domain.CreateClient{ID: source, UserID: bob, Name: "s", PublicKey: key})
	for round := range int64(rounds) {
		if !ok {
			return
		}
		n := lane*int64(rounds) + round
		share, anonymous := 1+n, domain.FirstAnonymousID+n
		ok = do(domain.CreateShare{ID: share, UserID: ann, TargetClientID: target, Protocol: domain.ProtocolTCP,
			Service: domain.Service{TargetHost: "db", TargetPort: 1}, Hash: hash, MaxUses: 1}) &&
			do(domain.CreateInvite{ID: share, UserID: ann, Hash: hash, MaxUses: 1}) && do(domain.RegisterClient{ID: anonymous, PublicKey: key})
		if !ok {
			return
		}
		taken := fmt.Sprintf("new%d-%d", lane, round)
		for what, both := range map[string][2]domain.Command{
			"redemption": {
				domain.RedeemShare{ID: share, Hash: hash, MappingID: 10_000 + 2*n, RedeemerID: bob, SourceClientID: source, Origin: domain.Origin{LocalPort: int(1 + 2*round)}},
				domain.RedeemShare{ID: share, Hash: hash, MappingID: 10_001 + 2*n, RedeemerID: bob, SourceClientID: source, Origin: domain.Origin{LocalPort: int(2 + 2*round)}}},
			"invitation": {
				domain.RedeemInvite{ID: share, Hash: hash, ClientID: domain.FirstClientID + 100_000 + 2*n, PublicKey: bytes.Repeat([]byte{1}, 32)},
				domain.RedeemInvite{ID: share, Hash: hash, ClientID: domain.FirstClientID + 100_001 + 2*n, PublicKey: bytes.Repeat([]byte{2}, 32)}},
			"claim": {
				domain.ClaimClient{ID: anonymous, NewID: domain.FirstClientID + 10_000 + 2*n, UserID: ann, PublicKey: key},
				domain.ClaimClient{ID: anonymous, NewID: domain.FirstClientID + 10_001 + 2*n, UserID: bob, PublicKey: key}},
			"rename": {domain.ChangeUser{ID: ann, Username: &taken}, domain.ChangeUser{ID: bob, Username: &taken}},
		} {
			if won := submitBoth(t, planes, both); won != 1 {
				t.Errorf("lane %d round %d: of two of a %s %d won", lane, round, what, won)
				return
			}
		}
	}
}

// submitBoth submits two commands at the same moment and gives how many were accepted.
// The refusal of the other command must have this reason.
func submitBoth(t *testing.T, planes [2]*eventstore.Executor, both [2]domain.Command) (won int) {
	var errs [2]error
	var submitting sync.WaitGroup
	begin := make(chan struct{})
	for i, c := range both {
		submitting.Go(func() {
			<-begin
			s := submission(c)
			s.Meta.At = time.Now().UTC()
			_, errs[i] = planes[i].Submit(t.Context(), s)
		})
	}
	close(begin)
	submitting.Wait()
	for i, err := range errs {
		switch domain.CodeOf(err) {
		case domain.CodeShareEnded, domain.CodeInviteEnded, domain.CodeClientClaimed, domain.CodeUsernameTaken:
		case "":
			if err != nil {
				t.Errorf("%s: %v", both[i].CommandName(), err)
			}
			won++
		default:
			t.Errorf("%s: %v", both[i].CommandName(), err)
		}
	}
	return won
}
