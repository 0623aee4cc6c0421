// Package load asks a REST API as many callers at once and measures its answers.
//
// Its duty: callers that cost almost nothing ([Caller]); accounts with keys, clients
// and mappings for their requests ([Populate]); the two kinds of requests whose rates
// are promised ([World.Read], [World.Write]); and figures ([Run]). Its limit: it speaks
// to one address, uses the documented contract only, and judges only whether an answer
// is the right one.
package load

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Result is the result of a run.
type Result struct {
	Took     time.Duration
	Done     int             // requests with the right answer
	Failed   int             // all other requests
	Err      error           // some of the errors of failed requests
	Duration []time.Duration // of each request in Done, rising
}

// Rate gives the requests done per second.
func (r Result) Rate() float64 { return float64(r.Done) / max(r.Took.Seconds(), 1e-9) }

// Quantile gives the duration that this fraction of the requests did not exceed.
func (r Result) Quantile(fraction float64) time.Duration {
	if len(r.Duration) == 0 {
		return 0
	}
	return r.Duration[min(int(fraction*float64(len(r.Duration))), len(r.Duration)-1)]
}

// String gives one line for people.
func (r Result) String() string {
	return fmt.Sprintf("%.0f requests/s, p50 %v, p99 %v, %d errors", r.Rate(), r.Quantile(0.5).Round(10*time.Microsecond),
		r.Quantile(0.99).Round(10*time.Microsecond), r.Failed)
}

// keptErrors is how many errors of a run are kept.
const keptErrors = 5

// Enough is returned by the work of [Run] to end the run early.
var Enough = errors.New("enough")

// Run lets every caller make requests for d, one after the other. do makes the next
// request of a caller; a caller whose connection broke stops.
func Run(callers []*Caller, d time.Duration, do func(caller int, c *Caller) error) Result {
	var mu sync.Mutex
	var total Result // guarded by mu
	var running sync.WaitGroup
	began := time.Now()
	for i, c := range callers {
		running.Go(func() {
			took := make([]time.Duration, 0, 1<<12)
			failed := 0
			var errs []error
			for at := time.Now(); at.Sub(began) < d; {
				err := do(i, c)
				now := time.Now()
				if errors.Is(err, Enough) {
					break
				}
				if err == nil {
					took = append(took, now.Sub(at))
				} else {
					failed++
					if len(errs) < keptErrors {
						errs = append(errs, fmt.Errorf("caller %d: %w", i, err))
					}
					if _, answered := errors.AsType[*wrongAnswer](err); !answered {
						break
					}
				}
				at = now
			}
			mu.Lock()
			defer mu.Unlock()
			total.Duration = append(total.Duration, took...)
			total.Failed += failed
			if total.Failed <= keptErrors {
				total.Err = errors.Join(append([]error{total.Err}, errs...)...)
			}
		})
	}
	running.Wait()
	total.Took, total.Done = time.Since(began), len(total.Duration)
	slices.Sort(total.Duration)
	return total
}

// wrongAnswer is an answer that differs from the expected one.
type wrongAnswer struct {
	asked  string
	status int
	body   string
}

// Error implements error.
func (w *wrongAnswer) Error() string {
	return fmt.Sprintf("%s: %d %.300s", w.asked, w.status, w.body)
}
