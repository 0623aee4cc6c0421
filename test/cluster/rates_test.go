package cluster

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestControlPlanesCountTogether: a user who alternates between two control planes gets
// the rate once, and so does somebody who guesses a password. Without Redis each gives
// its part, and nobody is refused for it.
func TestControlPlanesCountTogether(t *testing.T) {
	t.Parallel()
	const perSecond, burst = 1, 40
	redis := services.StartRedis(t)
	first := programs.StartServerAt(t, "127.0.0.10", "control", "--postgres", services.Postgres(t), "--redis", redis.URL(),
		"--rate-limit", fmt.Sprint(perSecond), "--rate-burst", fmt.Sprint(burst))
	second := programs.StartControlBeside(t, "127.0.0.11", first)
	both := []*programs.API{first.API, second.API}
	caller := func(name string) (callers []*programs.API) {
		var user programs.User
		first.API.Do(t, "POST", "/api/v1/users", map[string]any{"username": name, "email": name + "@example.org", "password": "correct horse battery"}, &user)
		var made struct{ Key string }
		first.API.Do(t, "POST", "/api/v1/keys", map[string]any{"user_id": user.ID, "name": "k"}, &made)
		for _, api := range both {
			callers = append(callers, programs.NewAPI(t, api.URL, made.Key))
		}
		return callers
	}
	// count gives how many of n requests, in turn to each control plane, had a status.
	count := func(callers []*programs.API, n int, method, path string, body any) (statuses map[int]int, took time.Duration) {
		statuses, began := map[int]int{}, time.Now()
		for i := range n {
			answer, err := callers[i%2].Call(method, path, body)
			if err != nil {
				t.Fatal(err)
			}
			statuses[answer.Status]++
		}
		return statuses, time.Since(began)
	}
	holds := func(what string, got map[int]int, status, n int, least, most float64) {
		t.Helper()
		if good := float64(got[status]); good < least || good > most || got[status]+got[http.StatusTooManyRequests] != n {
			t.Errorf("%s: answers by status are %v, want %.1f to %.1f of %d and the others 429", what, got, least, most, n)
		}
	}
	// together asks until Redis was never too slow for one of the two meanwhile.
	together := func(ask func(name string) (map[int]int, time.Duration)) (map[int]int, time.Duration) {
		alone := func() (sum float64) {
			for _, s := range []*programs.Server{first, second} {
				n, err := s.Sum("tunnox_api_rates_alone_total")
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
			return sum
		}
		for try := range 10 {
			before := alone()
			if got, took := ask(fmt.Sprintf("ann%d", try)); alone() == before {
				return got, took
			}
		}
		t.Fatal("Redis is always too slow to count")
		return nil, 0
	}
	bob := caller("bob")
	const n = 3 * burst
	got, took := together(func(name string) (map[int]int, time.Duration) {
		return count(caller(name), n, "GET", "/api/v1/auth/me", nil)
	})
	// What a control plane took in advance and did not use within a second is lost.
	holds("requests", got, http.StatusOK, n, burst/4, burst+perSecond*took.Seconds()+1)

	// Five guesses at an account from one address, and one in ten seconds.
	strangers := []*programs.API{programs.NewAPI(t, first.API.URL, ""), programs.NewAPI(t, second.API.URL, "")}
	got, took = together(func(name string) (map[int]int, time.Duration) {
		return count(strangers, 12, "POST", "/api/v1/auth/login", map[string]any{"username": name, "password": "wrong"})
	})
	holds("guesses", got, http.StatusUnauthorized, 12, 1, 5+took.Seconds()/10+1)

	redis.Kill(t)
	programs.Eventually(t, 15*time.Second, func() error { // until both have noticed
		for _, api := range both {
			if answer, err := api.Call("GET", "/ready", nil); err != nil || answer.Status != http.StatusOK {
				return fmt.Errorf("%d %s, %v", answer.Status, answer.Body, err)
			}
		}
		return nil
	})
	got, took = count(bob, n, "GET", "/api/v1/auth/me", nil)
	holds("requests without Redis", got, http.StatusOK, n, burst, burst+perSecond*took.Seconds()+2)
}
