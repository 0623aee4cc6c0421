// Package usage is the contract of what was used: bytes and connections, by
// account, mapping and client, counted while they flow.
//
// Its duty: a forwarder sends a [Report] for each interval in which there was
// something, and a [Store] counts it, once, however often it arrives. The
// [Answer] tells the forwarder what it needs to hold limits that more than one
// forwarder works at: the account's month, the part of its bandwidth that is for
// this one, the connections at others.
//
// Its limits: these are counters that change, not history, so they are beside
// the log. What a forwarder had counted and not told when it was killed is lost:
// one interval, and one report. Nothing is ever counted twice.
package usage

import (
	"context"
	"errors"
	"time"
)

// Traffic is what has gone through.
type Traffic struct {
	ToTarget int64 // bytes from source agents to target agents
	ToSource int64
	Streams  int64 // connections that began
}

// Bytes are those of both directions, which is what limits are about.
func (t Traffic) Bytes() int64 { return t.ToTarget + t.ToSource }

// Add adds o.
func (t *Traffic) Add(o Traffic) {
	t.ToTarget += o.ToTarget
	t.ToSource += o.ToSource
	t.Streams += o.Streams
}

// Line is what a mapping has carried at one forwarder since the report before,
// and how many of its streams are open there now.
type Line struct {
	Mapping int64
	Account int64 // who pays: the mapping's user
	Source  int64 // client ids
	Target  int64
	Traffic
	Open int64
}

// Ask asks about an account whose limits are to be held.
type Ask struct {
	Account int64
	// Demand is how much of the account's bandwidth this forwarder would use now,
	// in millionths of it: FullDemand where streams wait for it, 0 when it needs
	// no share any more.
	Demand int64
}

// FullDemand is the demand of a forwarder that would use all there is.
const FullDemand = 1_000_000

// Report is what a forwarder has counted since its last one.
type Report struct {
	// Reporter names one life of a forwarder. Its reports are numbered from 1, and
	// it sends the next only when the one before was answered: until then it
	// repeats it, unchanged.
	Reporter string
	Node     string
	Sequence int64
	Span     time.Duration // the time that Lines cover
	Lines    []Line        // a mapping at most once
	Asks     []Ask         // an account at most once
	Mappings []int64       // to be told the streams of these at other forwarders
	// Last says that the forwarder ends: its open streams and fractions are over.
	Last bool
}

// MaxLines is how many lines, asks and mappings each a report may have.
const MaxLines = 500

// Check tells what is wrong with a report.
func (r Report) Check() error {
	switch {
	case r.Reporter == "" || len(r.Reporter) > 200:
		return errors.New("usage: a report without the name of its reporter")
	case r.Sequence < 1:
		return errors.New("usage: reports are numbered from 1")
	case len(r.Lines) > MaxLines || len(r.Asks) > MaxLines || len(r.Mappings) > MaxLines:
		return errors.New("usage: a report with too many lines")
	}
	seen := make(map[int64]bool, len(r.Lines))
	for _, l := range r.Lines {
		if l.ToTarget < 0 || l.ToSource < 0 || l.Streams < 0 || l.Open < 0 {
			return errors.New("usage: a negative count")
		}
		if seen[l.Mapping] {
			return errors.New("usage: a mapping twice in a report")
		}
		seen[l.Mapping] = true
	}
	clear(seen)
	for _, a := range r.Asks {
		if a.Demand < 0 || a.Demand > FullDemand || seen[a.Account] {
			return errors.New("usage: an account is asked about twice, or with a demand out of range")
		}
		seen[a.Account] = true
	}
	return nil
}

// Answer is what a forwarder is told in return.
type Answer struct {
	Duplicate bool      // the report had been counted before
	Accounts  []Account // as asked
	Elsewhere []Open    // of Mappings, those that have streams elsewhere
}

// Account is what is known of an account, this report included.
type Account struct {
	Account  int64
	Used     int64     // bytes of both directions in this calendar month, UTC
	Resets   time.Time // when the month ends
	Fraction float64   // of the account's bandwidth for this forwarder, 0 to 1; 0 without a demand
}

// Open is how many streams of a mapping are open.
type Open struct {
	Mapping int64
	Streams int64
}

// Kind is what a sum is about.
type Kind int

// The kinds. A stream counts for both of its clients.
const (
	All Kind = iota
	OfAccount
	OfClient
	OfMapping
)

// Subject is what a series is about.
type Subject struct {
	Kind Kind
	ID   int64 // 0 for All
}

// Step is the width of a bucket.
type Step time.Duration

// The steps that are kept, and for how long.
const (
	Minute = Step(time.Minute)
	Hour   = Step(time.Hour)
	Day    = Step(24 * time.Hour)

	KeptMinutes = 3 * time.Hour
	KeptHours   = 9 * 24 * time.Hour
	KeptDays    = 400 * 24 * time.Hour
	KeptMonths  = 3 * 366 * 24 * time.Hour
	// KeptReporters is how long a report can be repeated without being counted
	// again.
	KeptReporters = 30 * 24 * time.Hour
)

// Steps lists them.
var Steps = []Step{Minute, Hour, Day}

// Kept is how long buckets of the step are kept.
func (s Step) Kept() time.Duration {
	switch s {
	case Minute:
		return KeptMinutes
	case Hour:
		return KeptHours
	}
	return KeptDays
}

// Begin is the beginning of the bucket that t is in.
func (s Step) Begin(t time.Time) time.Time { return t.UTC().Truncate(time.Duration(s)) }

// Bucket is what a series has at one time.
type Bucket struct {
	At time.Time
	Traffic
}

// Rates is what flows now.
type Rates struct {
	Nodes    int   // forwarders that have reported lately
	ToTarget int64 // bytes per second
	ToSource int64
	Streams  int64 // open now
}

// Fresh is how long a forwarder that has gone silent counts as there, with its
// open streams and fractions. Forwarders report at least every third of it while
// they have either.
const Fresh = 15 * time.Second

// Store counts. Its methods may be called concurrently, and by any number of
// processes over the same database. now is the caller's time; it decides which
// buckets and month a report goes to.
type Store interface {
	// Count counts a report and answers it. One with a number that its reporter
	// has used is answered and not counted.
	Count(ctx context.Context, now time.Time, r Report) (Answer, error)
	// Months gives what accounts have used in the month of t. Accounts without
	// anything are left out.
	Months(ctx context.Context, t time.Time, accounts ...int64) (map[int64]Traffic, error)
	// Series gives the buckets from from until to that are not empty, in order.
	Series(ctx context.Context, of Subject, step Step, from, to time.Time) ([]Bucket, error)
	// Live gives the streams that are open now, of accounts, clients or mappings.
	// Those without any are left out.
	Live(ctx context.Context, now time.Time, of Kind, ids ...int64) (map[int64]int64, error)
	// Rates gives what flows now through all forwarders.
	Rates(ctx context.Context, now time.Time) (Rates, error)
	// Prune deletes what is kept no longer.
	Prune(ctx context.Context, now time.Time) error
	Close() error
}

// MonthOf is the beginning of the calendar month that t is in, UTC.
func MonthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// NextMonth is when the month that t is in ends.
func NextMonth(t time.Time) time.Time { return MonthOf(t).AddDate(0, 1, 0) }
