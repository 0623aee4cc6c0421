// Package usagetest is the suite that every [usage.Store] must pass.
package usagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/usage"
)

// at is a moment near the end of a month.
var at = time.Date(2026, time.January, 31, 23, 40, 30, 0, time.UTC)

const (
	ann, bob     = int64(100000001), int64(100000002)
	web, ssh     = int64(1001), int64(1002)
	home, office = int64(600000000), int64(600000001)
)

// line makes a line that is charged to ann.
func line(mapping, toTarget, toSource, streams, open int64) usage.Line {
	return usage.Line{Mapping: mapping, Account: ann, Source: home, Target: office,
		Traffic: usage.Traffic{ToTarget: toTarget, ToSource: toSource, Streams: streams}, Open: open}
}

func report(reporter string, sequence int64, lines ...usage.Line) usage.Report {
	return usage.Report{Reporter: reporter, Node: "node-" + reporter, Sequence: sequence, Span: time.Second, Lines: lines,
		Asks: []usage.Ask{{Account: ann}}}
}

// suite is one store under test.
type suite struct {
	*testing.T
	usage.Store
}

// Run runs the suite. open makes an empty store for each test.
func Run(t *testing.T, open func(t testing.TB) usage.Store) {
	for name, test := range map[string]func(*suite){
		"what was reported is counted everywhere":           counted,
		"a report is counted once":                          once,
		"reports of many at the same moment":                concurrent,
		"a report that was broken off is counted or is not": brokenOff,
		"a month ends": month,
		"open streams count while their reporter reports":      live,
		"parts of a bandwidth never exceed the whole":          fractions,
		"parts of a bandwidth follow demand":                   demand,
		"what is kept no longer is deleted and the rest stays": prune,
		"a series shows what is its subject's":                 series,
		"the same as the model":                                model,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{t, open(t)}) })
	}
}

func (s *suite) count(now time.Time, r usage.Report) usage.Answer {
	s.Helper()
	if err := r.Check(); err != nil {
		s.Fatal(err)
	}
	answer, err := s.Count(context.Background(), now, r)
	if err != nil {
		s.Fatal(err)
	}
	return answer
}

func (s *suite) month(now time.Time, account int64) usage.Traffic {
	s.Helper()
	months, err := s.Months(context.Background(), now, account)
	if err != nil {
		s.Fatal(err)
	}
	return months[account]
}

func (s *suite) series(of usage.Subject, step usage.Step, from, to time.Time) []usage.Bucket {
	s.Helper()
	buckets, err := s.Series(context.Background(), of, step, from, to)
	if err != nil {
		s.Fatal(err)
	}
	return buckets
}

func (s *suite) sum(of usage.Subject, step usage.Step) (sum usage.Traffic) {
	s.Helper()
	for _, b := range s.series(of, step, at.Add(-1000*time.Hour), at.Add(1000*time.Hour)) {
		sum.Add(b.Traffic)
	}
	return sum
}

func (s *suite) open(now time.Time, of usage.Kind, id int64) int64 {
	s.Helper()
	open, err := s.Live(context.Background(), now, of, id)
	if err != nil {
		s.Fatal(err)
	}
	return open[id]
}

func same[T any](s *suite, what string, got, want T) {
	s.Helper()
	if !reflect.DeepEqual(got, want) {
		s.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func counted(s *suite) {
	a := s.count(at, report("a", 1, line(web, 100, 10, 2, 1), line(ssh, 5, 50, 1, 1)))
	same(s, "answer", a, usage.Answer{Accounts: []usage.Account{{Account: ann, Used: 165, Resets: time.Date(2026, time.February, 1, 0, 0, 0, 0, time.UTC)}}})
	want := usage.Traffic{ToTarget: 105, ToSource: 60, Streams: 3}
	same(s, "month", s.month(at, ann), want)
	for _, step := range usage.Steps {
		same(s, "series", s.series(usage.Subject{}, step, at.Add(-48*time.Hour), at.Add(time.Second)), []usage.Bucket{{At: step.Begin(at), Traffic: want}})
	}
	for _, of := range []usage.Subject{{Kind: usage.OfAccount, ID: ann}, {Kind: usage.OfClient, ID: home}, {Kind: usage.OfClient, ID: office}} {
		same(s, "sum", s.sum(of, usage.Hour), want)
	}
	same(s, "mapping", s.sum(usage.Subject{Kind: usage.OfMapping, ID: ssh}, usage.Day), usage.Traffic{ToTarget: 5, ToSource: 50, Streams: 1})
	same(s, "bob's month", s.month(at, bob), usage.Traffic{})
	rates, err := s.Rates(context.Background(), at)
	if err != nil {
		s.Fatal(err)
	}
	same(s, "rates", rates, usage.Rates{Nodes: 1, ToTarget: 105, ToSource: 60, Streams: 2})
	// The last line of a mapping carries nothing and makes no bucket.
	s.count(at.Add(time.Minute), report("a", 2, line(web, 0, 0, 0, 0)))
	same(s, "minutes", len(s.series(usage.Subject{}, usage.Minute, at.Add(-time.Hour), at.Add(time.Hour))), 1)
}

func once(s *suite) {
	first := report("a", 1, line(web, 100, 0, 1, 1))
	s.count(at, first)
	for range 3 { // the answer was lost
		a := s.count(at.Add(time.Second), first)
		same(s, "repeated", a.Duplicate, true)
		same(s, "used", a.Accounts[0].Used, 100)
	}
	s.count(at.Add(2*time.Second), report("a", 2, line(web, 10, 0, 0, 2)))
	s.count(at.Add(3*time.Second), first) // arrived late
	same(s, "month", s.month(at, ann), usage.Traffic{ToTarget: 110, Streams: 1})
	same(s, "days", s.sum(usage.Subject{}, usage.Day), usage.Traffic{ToTarget: 110, Streams: 1})
	same(s, "open", s.open(at.Add(3*time.Second), usage.OfMapping, web), 2) // a late report changes nothing
	// Another run of the same forwarder begins at 1 again.
	s.count(at, report("a2", 1, line(web, 1, 0, 0, 0)))
	same(s, "another life", s.month(at, ann), usage.Traffic{ToTarget: 111, Streams: 1})
	// A store that was restored from a backup has an older number, so numbers may be
	// missing.
	s.count(at, report("a", 9, line(web, 1000, 0, 0, 0)))
	same(s, "numbers may be missing", s.month(at, ann), usage.Traffic{ToTarget: 1111, Streams: 1})
}

func concurrent(s *suite) {
	const reporters, reports, copies = 6, 12, 2
	var running sync.WaitGroup
	for i := range reporters {
		running.Go(func() {
			name := fmt.Sprint("r", i)
			for n := range int64(reports) {
				lines := []usage.Line{line(web, 7, 1, 1, n), line(ssh, 2, 3, 0, 1)}
				if i%2 == 1 {
					lines[0], lines[1] = lines[1], lines[0]
				}
				lines[1].Account = bob
				lines[0].Account = ann
				r := report(name, n+1, lines...)
				r.Asks = []usage.Ask{{Account: bob, Demand: 1}, {Account: ann, Demand: usage.FullDemand}}
				var copying sync.WaitGroup
				for range copies {
					copying.Go(func() {
						if _, err := s.Count(context.Background(), at, r); err != nil {
							s.Error(err)
						}
					})
				}
				copying.Wait()
			}
		})
	}
	running.Wait()
	all := s.month(at, ann)
	all.Add(s.month(at, bob))
	want := usage.Traffic{ToTarget: 9 * reporters * reports, ToSource: 4 * reporters * reports, Streams: reporters * reports}
	same(s, "months", all, want)
	for _, step := range usage.Steps {
		same(s, "buckets", s.sum(usage.Subject{}, step), want)
	}
	same(s, "open", s.open(at, usage.OfMapping, web), reporters*(reports-1))
}

// brokenOff cancels reports in the middle and repeats them. This is what happens when a
// control plane is killed.
func brokenOff(s *suite) {
	const reports = 25
	broken := 0
	for n := range int64(reports) {
		r := report("a", n+1, line(web, 10, 1, 1, n%3), line(ssh, 1, 0, 0, 0))
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(9000))*time.Microsecond)
		_, err := s.Count(ctx, at, r)
		cancel()
		if err == nil {
			continue
		}
		broken++
		s.count(at, r)
	}
	s.Logf("%d of %d reports were broken off", broken, reports)
	want := usage.Traffic{ToTarget: 11 * reports, ToSource: reports, Streams: reports}
	same(s, "month", s.month(at, ann), want)
	same(s, "minutes", s.sum(usage.Subject{}, usage.Minute), want)
}

func month(s *suite) {
	s.count(at, report("a", 1, line(web, 100, 0, 1, 1)))
	next := at.Add(30 * time.Minute)
	a := s.count(next, report("a", 2, line(web, 7, 0, 0, 1)))
	same(s, "account", a.Accounts[0], usage.Account{Account: ann, Used: 7, Resets: time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC)})
	same(s, "january", s.month(at, ann), usage.Traffic{ToTarget: 100, Streams: 1})
	same(s, "february", s.month(next, ann), usage.Traffic{ToTarget: 7})
	// An account that has used nothing is in the answer too.
	r := report("a", 3)
	r.Asks = []usage.Ask{{Account: bob}}
	same(s, "bob", s.count(next, r).Accounts[0].Used, 0)
}

func live(s *suite) {
	s.count(at, report("a", 1, line(web, 0, 0, 2, 2)))
	r := report("b", 1, line(web, 0, 0, 3, 3), line(ssh, 0, 0, 1, 1))
	r.Mappings = []int64{web, ssh}
	same(s, "elsewhere", s.count(at, r).Elsewhere, []usage.Open{{Mapping: web, Streams: 2}})
	same(s, "account", s.open(at, usage.OfAccount, ann), 6)
	same(s, "client", s.open(at, usage.OfClient, office), 6)
	same(s, "mapping", s.open(at, usage.OfMapping, web), 5)
	same(s, "nobody", s.open(at, usage.OfAccount, bob), 0)
	// Reporter b reports again; a was killed and does not.
	later := at.Add(usage.Fresh + time.Second)
	s.count(later, report("b", 2))
	same(s, "mapping without a", s.open(later, usage.OfMapping, web), 3)
	last := report("b", 3)
	last.Last = true
	s.count(later, last)
	same(s, "nobody is left", s.open(later, usage.OfAccount, ann), 0)
	rates, err := s.Rates(context.Background(), later)
	if err != nil {
		s.Fatal(err)
	}
	same(s, "rates", rates, usage.Rates{})
	// A repeated last report is recognised as a repetition.
	same(s, "repeated end", s.count(later, last).Duplicate, true)
}

// fractions lets forwarders come, ask and leave at random, and adds up their fractions.
func fractions(s *suite) {
	random := rand.New(rand.NewPCG(1, 2))
	have := map[string]float64{}
	sequence := map[string]int64{}
	now := at
	for range 120 {
		now = now.Add(100 * time.Millisecond)
		name := fmt.Sprint("r", random.IntN(5))
		sequence[name]++
		r := report(name, sequence[name])
		r.Asks[0].Demand = []int64{0, 1, 50_000, usage.FullDemand}[random.IntN(4)]
		have[name] = s.count(now, r).Accounts[0].Fraction
		if (have[name] > 0) != (r.Asks[0].Demand > 0) {
			s.Errorf("a demand of %d got %v", r.Asks[0].Demand, have[name])
		}
		sum := 0.0
		for _, part := range have {
			sum += part
		}
		if sum >= 1 {
			s.Fatalf("the parts add up to %v: %v", sum, have)
		}
	}
}

func demand(s *suite) {
	ask := func(now time.Time, name string, sequence, demand int64) float64 {
		r := report(name, sequence)
		r.Asks[0].Demand = demand
		return s.count(now, r).Accounts[0].Fraction
	}
	if alone := ask(at, "a", 1, usage.FullDemand); alone < 0.95 {
		s.Errorf("one alone gets %v", alone)
	}
	if first := ask(at, "b", 1, usage.FullDemand); first <= 0 || first > 0.05 {
		s.Errorf("one that comes gets %v at once", first)
	}
	var a, b float64
	for n := range int64(5) {
		a, b = ask(at, "a", n+2, usage.FullDemand), ask(at, "b", n+2, usage.FullDemand)
	}
	if a < 0.45 || b < 0.45 {
		s.Errorf("two with equal demand get %v and %v", a, b)
	}
	for n := range int64(5) {
		a, b = ask(at, "a", n+10, usage.FullDemand), ask(at, "b", n+10, usage.FullDemand/4)
	}
	if a < 0.75 || b < 0.15 || b > 0.25 {
		s.Errorf("with a quarter of the demand the other gets %v beside %v", b, a)
	}
	ask(at, "b", 20, 0) // leaves
	if a = ask(at, "a", 20, usage.FullDemand); a < 0.95 {
		s.Errorf("alone again it gets %v", a)
	}
	ask(at, "b", 21, usage.FullDemand) // is killed
	if a = ask(at.Add(usage.Fresh+time.Second), "a", 21, usage.FullDemand); a < 0.95 {
		s.Errorf("after the other was killed it gets %v", a)
	}
}

func prune(s *suite) {
	s.count(at, report("a", 1, line(web, 100, 0, 1, 1)))
	check := func(now time.Time, want map[usage.Step]int) {
		s.Helper()
		if err := s.Prune(context.Background(), now); err != nil {
			s.Fatal(err)
		}
		for _, step := range usage.Steps {
			same(s, fmt.Sprintf("buckets of %v at %v", time.Duration(step), now), len(s.series(usage.Subject{}, step, at.Add(-48*time.Hour), at.Add(time.Hour))), want[step])
		}
	}
	check(at.Add(usage.KeptMinutes-time.Hour), map[usage.Step]int{usage.Minute: 1, usage.Hour: 1, usage.Day: 1})
	check(at.Add(usage.KeptMinutes+time.Hour), map[usage.Step]int{usage.Hour: 1, usage.Day: 1})
	check(at.Add(usage.KeptHours+25*time.Hour), map[usage.Step]int{usage.Day: 1})
	same(s, "month", s.month(at, ann), usage.Traffic{ToTarget: 100, Streams: 1})
	same(s, "late repetition", s.count(at.Add(usage.KeptReporters-time.Hour), report("a", 1, line(web, 100, 0, 1, 1))).Duplicate, true)
	check(at.Add(usage.KeptDays+25*time.Hour), map[usage.Step]int{})
	if err := s.Prune(context.Background(), at.Add(usage.KeptMonths+32*24*time.Hour)); err != nil {
		s.Fatal(err)
	}
	same(s, "month", s.month(at, ann), usage.Traffic{})
}

func series(s *suite) {
	for n := range int64(10) {
		l := line(web, n+1, 0, 1, 0)
		if n%2 == 1 {
			l.Mapping, l.Account, l.Source = ssh, bob, office
		}
		s.count(at.Add(time.Duration(n)*time.Minute), report("a", n+1, l))
	}
	from, to := usage.Minute.Begin(at).Add(2*time.Minute), usage.Minute.Begin(at).Add(6*time.Minute)
	var got []int64
	for _, b := range s.series(usage.Subject{}, usage.Minute, from, to) {
		got = append(got, b.ToTarget)
	}
	same(s, "from is in, to is not", got, []int64{3, 4, 5, 6})
	same(s, "ann's", s.sum(usage.Subject{Kind: usage.OfAccount, ID: ann}, usage.Minute).ToTarget, 1+3+5+7+9)
	same(s, "of a client with itself", s.sum(usage.Subject{Kind: usage.OfClient, ID: office}, usage.Minute).ToTarget, 55)
	same(s, "of the other", s.sum(usage.Subject{Kind: usage.OfClient, ID: home}, usage.Minute).ToTarget, 25)
	same(s, "of nobody", s.series(usage.Subject{Kind: usage.OfMapping, ID: 5}, usage.Minute, from, to), []usage.Bucket(nil))
}

// model reports at random, repeats and delays reports, and compares the store with
// maps.
func model(s *suite) {
	random := rand.New(rand.NewPCG(3, 4))
	months := map[int64]usage.Traffic{}
	days := map[int64]usage.Traffic{}
	sequence := map[string]int64{}
	var sent []usage.Report
	for range 80 {
		if len(sent) > 0 && random.IntN(3) == 0 {
			s.count(at, sent[random.IntN(len(sent))])
			continue
		}
		name := fmt.Sprint("r", random.IntN(3))
		sequence[name]++
		var lines []usage.Line
		for _, m := range random.Perm(6)[:random.IntN(6)] {
			l := line(int64(m), random.Int64N(1e6), random.Int64N(1e6), random.Int64N(3), random.Int64N(3))
			if m%2 == 0 {
				l.Account = bob
			}
			lines = append(lines, l)
			for _, sum := range []struct {
				of map[int64]usage.Traffic
				id int64
			}{{months, l.Account}, {days, l.Mapping}} {
				t := sum.of[sum.id]
				t.Add(l.Traffic)
				sum.of[sum.id] = t
			}
		}
		r := report(name, sequence[name], lines...)
		sent = append(sent, r)
		s.count(at, r)
	}
	got, err := s.Months(context.Background(), at, ann, bob)
	if err != nil {
		s.Fatal(err)
	}
	same(s, "months", got, months)
	for id := range maps.Keys(days) {
		same(s, "day", s.sum(usage.Subject{Kind: usage.OfMapping, ID: id}, usage.Day), days[id])
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Count(ctx, at, report("r0", 1000, line(web, 1, 0, 0, 0))); !errors.Is(err, context.Canceled) {
		s.Errorf("a report of a caller that left: %v", err)
	}
}
