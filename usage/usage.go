// Package usage is the contract for counting usage: bytes and connections of each
// account, mapping and client, counted while they flow.
//
// Its duty: a forwarder sends a [Report] for each interval in which something flowed. A
// [Store] counts each report once, however often the report arrives. The [Answer] gives
// the forwarder what it needs to apply limits that span several forwarders: what the
// account has used this month, this forwarder's fraction of the account's bandwidth,
// and the connections at other forwarders.
//
// Its limits: the counts are counters that change, not history. So they are stored
// beside the log and not in it. When a forwarder is killed, its unreported counts are
// lost: at most one interval and one report. Nothing is counted twice.
package usage

import (
	"context"
	"errors"
	"time"
)

// Traffic is an amount of bytes and of connections.
type Traffic struct {
	ToTarget int64 // bytes from source agents to target agents
	ToSource int64
	Streams  int64 // connections that were opened
}

// Bytes gives the bytes of both directions together. Limits apply to this sum.
func (t Traffic) Bytes() int64 { return t.ToTarget + t.ToSource }

// Add adds o to t.
func (t *Traffic) Add(o Traffic) {
	t.ToTarget += o.ToTarget
	t.ToSource += o.ToSource
	t.Streams += o.Streams
}

// Line is what one forwarder has carried for one mapping since its last report, and how
// many streams of the mapping are open there now.
type Line struct {
	Mapping int64
	Account int64 // the mapping's user, who is charged
	Source  int64 // Source and Target are client ids
	Target  int64
	Traffic
	Open int64
}

// Ask asks for the state of an account that has limits.
type Ask struct {
	Account int64
	// Demand is the part of the account's bandwidth that this forwarder could use now,
	// in millionths. It is FullDemand while streams wait for bandwidth, and 0 when the
	// forwarder needs no fraction any more.
	Demand int64
}

// FullDemand is the demand of a forwarder that could use the whole bandwidth.
const FullDemand = 1_000_000

// Report is what a forwarder has counted since its last one.
type Report struct {
	// Reporter names one run of a forwarder. Its reports are numbered from 1. The
	// forwarder sends the next report only after the answer to the last one; until then
	// it repeats the last one unchanged.
	Reporter string
	Node     string
	Sequence int64
	Span     time.Duration // the time that Lines cover
	Lines    []Line        // each mapping at most once
	Asks     []Ask         // each account at most once
	Mappings []int64       // mappings whose streams at other forwarders are asked for
	// Last says that the forwarder ends: it has no open streams and needs no fractions
	// any more.
	Last bool
}

// MaxLines is the highest number of lines, of asks and of mappings in a report.
const MaxLines = 500

// Check returns an error if the report is not valid.
func (r Report) Check() error {
	switch {
	case r.Reporter == "" || len(r.Reporter) > 200:
		return errors.New("usage: the name of the report's reporter is missing or too long")
	case r.Sequence < 1:
		return errors.New("usage: the number of a report must be 1 or more")
	case len(r.Lines) > MaxLines || len(r.Asks) > MaxLines || len(r.Mappings) > MaxLines:
		return errors.New("usage: the report has too many lines, asks or mappings")
	}
	seen := make(map[int64]bool, len(r.Lines))
	for _, l := range r.Lines {
		if l.ToTarget < 0 || l.ToSource < 0 || l.Streams < 0 || l.Open < 0 {
			return errors.New("usage: a count in the report is negative")
		}
		if seen[l.Mapping] {
			return errors.New("usage: a mapping is in the report twice")
		}
		seen[l.Mapping] = true
	}
	clear(seen)
	for _, a := range r.Asks {
		if a.Demand < 0 || a.Demand > FullDemand || seen[a.Account] {
			return errors.New("usage: an account is asked for twice, or its demand is out of range")
		}
		seen[a.Account] = true
	}
	return nil
}

// Answer is the answer to a report.
type Answer struct {
	Duplicate bool      // the report was counted before
	Accounts  []Account // one for each Ask
	Elsewhere []Open    // those of Mappings that have streams at other forwarders
}

// Account is the state of an account after the report was counted.
type Account struct {
	Account  int64
	Used     int64     // bytes of both directions in this calendar month, UTC
	Resets   time.Time // the end of the month
	Fraction float64   // of the account's bandwidth, for this forwarder; 0 to 1, and 0 without a demand
}

// Open is the number of open streams of a mapping.
type Open struct {
	Mapping int64
	Streams int64
}

// Kind is the kind of thing that a [Subject] names.
type Kind int

// The kinds. A stream counts for both of its clients.
const (
	All Kind = iota
	OfAccount
	OfClient
	OfMapping
)

// Subject names what a series is counted for.
type Subject struct {
	Kind Kind
	ID   int64 // 0 for All
}

// Step is the width of a bucket.
type Step time.Duration

// The steps that are kept, and how long each is kept.
const (
	Minute = Step(time.Minute)
	Hour   = Step(time.Hour)
	Day    = Step(24 * time.Hour)

	KeptMinutes = 3 * time.Hour
	KeptHours   = 9 * 24 * time.Hour
	KeptDays    = 400 * 24 * time.Hour
	KeptMonths  = 3 * 366 * 24 * time.Hour
	// KeptReporters is how long a repeated report is recognised as a repetition.
	KeptReporters = 30 * 24 * time.Hour
)

// Steps lists all steps.
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

// Begin gives the beginning of the bucket that contains t.
func (s Step) Begin(t time.Time) time.Time { return t.UTC().Truncate(time.Duration(s)) }

// Bucket is the traffic of a subject in one step of time.
type Bucket struct {
	At time.Time
	Traffic
}

// Rates is the traffic of the present moment.
type Rates struct {
	Nodes    int   // forwarders that have reported within Fresh
	ToTarget int64 // bytes per second
	ToSource int64
	Streams  int64 // open now
}

// Fresh is how long a forwarder without new reports still counts as running, with its
// open streams and fractions. A forwarder that has either reports at least three times
// within Fresh.
const Fresh = 15 * time.Second

// Store counts reports. Its methods may be called concurrently, and by any number of
// processes over the same database. The parameter now is the caller's time: it decides
// into which buckets and month a report is counted.
type Store interface {
	// Count counts a report and answers it. A report whose number its reporter has used
	// before is answered and not counted.
	Count(ctx context.Context, now time.Time, r Report) (Answer, error)
	// Months gives what accounts have used in the month of t. Accounts that used
	// nothing are left out.
	Months(ctx context.Context, t time.Time, accounts ...int64) (map[int64]Traffic, error)
	// Series gives the buckets from from until to, in order. Empty buckets are left
	// out.
	Series(ctx context.Context, of Subject, step Step, from, to time.Time) ([]Bucket, error)
	// Live gives the number of open streams of accounts, clients or mappings. Those
	// without open streams are left out.
	Live(ctx context.Context, now time.Time, of Kind, ids ...int64) (map[int64]int64, error)
	// Rates gives the present traffic through all forwarders.
	Rates(ctx context.Context, now time.Time) (Rates, error)
	// Prune deletes data whose time of keeping is over.
	Prune(ctx context.Context, now time.Time) error
	Close() error
}

// MonthOf gives the beginning of the calendar month that contains t, in UTC.
func MonthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// NextMonth gives the end of the calendar month that contains t, in UTC.
func NextMonth(t time.Time) time.Time { return MonthOf(t).AddDate(0, 1, 0) }
