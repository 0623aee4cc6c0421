// Package checkup is the report of a program that looks for faults: one line for each
// check, and for each line that is not well what to do.
//
// Its duty is that both programs report in one form, for people and for scripts. Its
// limit: it checks nothing itself.
package checkup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// State says how a check ended.
type State string

const (
	OK     State = "ok"
	Note   State = "note"   // it works, but somebody should look at it
	Failed State = "failed" // it does not work
)

// Finding is one line of a report.
type Finding struct {
	Check  string   `json:"check"`
	State  State    `json:"state"`
	Detail string   `json:"detail"`
	Do     string   `json:"do,omitempty"`            // what to do, in one line or several
	RTT    *float64 `json:"round_trip_ms,omitempty"` // in milliseconds, where one was measured
}

// Report collects findings in order. It is for one goroutine.
type Report struct{ Findings []Finding }

// Well adds a check that ended well.
func (r *Report) Well(check, format string, args ...any) { r.add(check, OK, "", format, args) }

// Note adds a check that somebody should look at.
func (r *Report) Note(check, do, format string, args ...any) { r.add(check, Note, do, format, args) }

// Fail adds a check that failed.
func (r *Report) Fail(check, do, format string, args ...any) { r.add(check, Failed, do, format, args) }

func (r *Report) add(check string, state State, do, format string, args []any) {
	r.Findings = append(r.Findings, Finding{Check: check, State: state, Do: do, Detail: fmt.Sprintf(format, args...)})
}

// Last is the finding that was added last. There must be one.
func (r *Report) Last() *Finding { return &r.Findings[len(r.Findings)-1] }

// Soften makes notes of the failures from a line on: something else stands in for what
// does not work.
func (r *Report) Soften(from int) {
	for i := from; i < len(r.Findings); i++ {
		if f := &r.Findings[i]; f.State == Failed {
			f.State = Note
		}
	}
}

// Err is an error if a check failed. The report has been printed, so it gives the number
// only.
func (r *Report) Err() error {
	n := 0
	for _, f := range r.Findings {
		if f.State == Failed {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("1 check has failed")
	}
	return fmt.Errorf("%d checks have failed", n)
}

// JSON writes the report for scripts.
func (r *Report) JSON(out io.Writer) error {
	b, err := json.MarshalIndent(map[string]any{"ok": r.Err() == nil, "checks": append([]Finding{}, r.Findings...)}, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}

// Print writes the report for people. paint colours the text of a state; nil leaves it.
// What would move a cursor is replaced, because names of others stand in details.
func (r *Report) Print(out io.Writer, paint func(state State, text string) string) error {
	widest := 0
	for _, f := range r.Findings {
		widest = max(widest, len([]rune(clean(f.Check))))
	}
	for _, f := range r.Findings {
		state := fmt.Sprintf("%-6s", f.State)
		if paint != nil {
			state = paint(f.State, state)
		}
		if _, err := fmt.Fprintf(out, "%-*s  %s  %s\n", widest, clean(f.Check), state, clean(f.Detail)); err != nil {
			return err
		}
		if f.State == OK || f.Do == "" {
			continue
		}
		for line := range strings.Lines(f.Do) {
			if _, err := fmt.Fprintf(out, "%-*s  do:     %s\n", widest, "", clean(strings.TrimSuffix(line, "\n"))); err != nil {
				return err
			}
		}
	}
	return nil
}

func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}
