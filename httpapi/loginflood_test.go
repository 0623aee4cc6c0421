package httpapi_test

import (
	"fmt"
	"sync"
	"testing"
)

// TestAFloodOfLoginsKeepsNobodyOut: many logins at once, each from another address
// and at another account, wait in a short line or are sent away, and who has logged
// in from their address before goes past them.
func TestAFloodOfLoginsKeepsNobodyOut(t *testing.T) {
	w := newWorld(t)
	w.person("ann", "user")
	from := func(address, name, password string) *answer {
		r := w.request("POST", path("auth", "login"), fields{"username": name, "password": password})
		r.RemoteAddr = address
		return w.send(r)
	}
	const home = "192.0.2.1:1000"
	from(home, "ann", "correct horse").want(200)

	const many = 300
	answers := make(chan *answer, many)
	var flood sync.WaitGroup
	for i := range many {
		flood.Go(func() {
			answers <- from(fmt.Sprintf("198.51.%d.%d:1", i/200, i%200), fmt.Sprint("user", i), "wrong horse")
		})
	}
	for range 5 {
		from(home, "ann", "correct horse").want(200) // however long the line of strangers is
	}
	flood.Wait()
	close(answers)
	byStatus := map[int]int{}
	for a := range answers {
		byStatus[a.Status]++
		if a.Status == 429 && (a.Header.Get("Retry-After") == "" || a.Body["code"] != "too_many_requests") {
			t.Errorf("sent away with %v %s", a.Header, a.Text)
		}
	}
	if byStatus[401]+byStatus[429] != many || byStatus[401] == 0 || byStatus[429] == 0 {
		t.Errorf("answers %v of %d", byStatus, many)
	}
	from("203.0.113.9:1", "ann", "correct horse").want(200) // when it is over, from anywhere
}
