package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress shows how far work on the log is: a bar on a terminal, and nothing
// elsewhere, where it would fill a file.
type progress struct {
	out   io.Writer // nil: not a terminal
	doing string
	began time.Time
	due   time.Time
}

// progressEvery is the time between two moves of the bar.
const progressEvery = 100 * time.Millisecond

func newProgress(stderr io.Writer, doing string) *progress {
	p := &progress{doing: doing, began: time.Now()}
	if f, ok := stderr.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.out = stderr
		}
	}
	return p
}

// at moves the bar; whole is 0 when it is not known.
func (p *progress) at(done, whole int64) {
	now := time.Now()
	if p.out == nil || now.Before(p.due) {
		return
	}
	p.due = now.Add(progressEvery)
	p.draw(done, whole, now)
}

func (p *progress) draw(done, whole int64, now time.Time) {
	const width = 30
	bar, percent := strings.Repeat("?", width), "  ? %"
	if whole > 0 {
		share := min(float64(done)/float64(whole), 1)
		full := int(share * width)
		bar = strings.Repeat("#", full) + strings.Repeat(".", width-full)
		percent = fmt.Sprintf("%3.0f %%", 100*share)
	}
	fmt.Fprintf(p.out, "\r%s [%s] %s  %d events, %d/s \x1b[K", p.doing, bar, percent, done, int64(rate(done, now.Sub(p.began))))
}

// end removes the bar and gives the duration of the work.
func (p *progress) end() time.Duration {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	return time.Since(p.began)
}

func rate(done int64, took time.Duration) float64 {
	return float64(done) / max(took.Seconds(), 1e-9)
}

// pace describes work for people.
func pace(done int64, took time.Duration) string {
	return fmt.Sprintf("%d events in %.2f s (%d events/s)", done, took.Seconds(), int64(rate(done, took)))
}
