package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// figure is one measured value; a negative one was not measured.
type figure float64

const missing figure = -1

// row is one line of the table. The last figure is ours and has the aim, unless the row
// names another one.
type row struct {
	what, unit string
	figures    []figure
	ours       int     // which figure, from 1; 0 = the last
	aim        float64 // 0 = none
	lower      bool    // lower is better
}

// table is what a run prints: sections with their own columns.
type table struct {
	lines []any // head or row
}

// head begins a section.
type head []string

func (t *table) section(columns ...string) { t.lines = append(t.lines, head(columns)) }

func (t *table) add(r row) { t.lines = append(t.lines, r) }

func (t *table) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 3, ' ', tabwriter.AlignRight)
	width, longest := 0, 0
	for _, line := range t.lines {
		if r, ok := line.(row); ok {
			longest = max(longest, len(r.what))
		}
	}
	for _, line := range t.lines {
		if h, ok := line.(head); ok {
			width = len(h) - 1
			fmt.Fprintf(w, "%-*s\t\t%s\taim\tours/aim\t\n", longest, h[0], strings.Join(h[1:], "\t"))
			continue
		}
		r := line.(row)
		cells := make([]string, width)
		for i := range cells {
			cells[i] = "-"
			if i < len(r.figures) && r.figures[i] >= 0 {
				cells[i] = r.figures[i].String()
			}
		}
		fmt.Fprintf(w, "%-*s\t%s\t%s\t%s\t%s\t\n", longest, r.what, r.unit, strings.Join(cells, "\t"), r.aimed(), r.ratio())
	}
	_ = w.Flush() // to a terminal or a pipe; there is nobody to report an error to
}

func (f figure) String() string {
	switch {
	case f >= 1000:
		return fmt.Sprintf("%.0f", float64(f))
	case f >= 100:
		return fmt.Sprintf("%.0f", float64(f))
	case f >= 10:
		return fmt.Sprintf("%.1f", float64(f))
	}
	return fmt.Sprintf("%.2f", float64(f))
}

func (r row) aimed() string {
	switch {
	case r.aim == 0:
		return ""
	case r.lower:
		return "<= " + figure(r.aim).String()
	}
	return ">= " + figure(r.aim).String()
}

// ratio is above 1 when the aim is met, whichever direction is better.
func (r row) ratio() string {
	ours := r.ours
	if ours == 0 {
		ours = len(r.figures)
	}
	if r.aim == 0 || ours == 0 || r.figures[ours-1] <= 0 {
		return ""
	}
	ratio := float64(r.figures[ours-1]) / r.aim
	if r.lower {
		ratio = 1 / ratio
	}
	if ratio < 1 {
		return fmt.Sprintf("%.2f  SHORT", ratio)
	}
	return fmt.Sprintf("%.2f", ratio)
}
