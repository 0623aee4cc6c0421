package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"
)

// screen is standard output at a terminal. There text is for people: times are relative,
// sizes have units, and colours mark what matters. In a pipe text is plain, the same on
// every machine and on every day.
type screen struct {
	*os.File
	colour bool
	now    func() time.Time
}

// onScreen gives standard output, as a screen if it is a terminal.
func (s surroundings) onScreen() io.Writer {
	if !isTerminal(s.stdout) {
		return s.stdout
	}
	dumb := s.variable("TERM") == "dumb" || runtime.GOOS == "windows" && !windowsTerminal(s)
	return &screen{File: s.stdout.(*os.File), colour: s.variable("NO_COLOR") == "" && !dumb, now: time.Now} // https://no-color.org
}

// windowsTerminal tells whether the terminal is one of Windows that understands escape
// sequences.
func windowsTerminal(s surroundings) bool {
	return runtime.GOOS == "windows" && (s.variable("WT_SESSION") != "" || s.variable("TERM") != "")
}

// Colours, as parameters of SGR (ECMA-48).
const (
	bold   = "1"
	grey   = "90"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (s *screen) paint(colour, text string) string { return pen{colour: s.colour}.paint(colour, text) }

// width is how many columns the terminal has.
func (s *screen) width() int {
	if columns, _, err := term.GetSize(int(s.Fd())); err == nil && columns > 0 {
		return columns
	}
	return 80
}

// wordColours are the colours of words that say how a thing is.
var wordColours = map[string]string{"online": green, "active": green, "open": green, "connected": green, "delivered": green, "offline": yellow,
	"waiting": yellow, "disabled": yellow, "failed": red}

// colourOf gives the colour of a cell.
func colourOf(cell string) string {
	if _, err := strconv.ParseInt(cell, 10, 64); err == nil && len(cell) >= 4 || cell == "-" {
		return grey // an id
	}
	return wordColours[cell]
}

// table prints rows in columns; where they do not fit, each row as a block of lines.
func (s *screen) table(titles []string, rows [][]string) error {
	widths := make([]int, len(titles))
	for _, row := range append([][]string{titles}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], columnsOf(cell))
		}
	}
	all := 2 * (len(widths) - 1)
	for _, w := range widths {
		all += w
	}
	var text strings.Builder
	if all > s.width() {
		s.blocks(&text, titles, rows)
	} else {
		s.line(&text, titles, widths, func(string) string { return bold })
		for _, row := range rows {
			s.line(&text, row, widths, colourOf)
		}
	}
	_, err := io.WriteString(s, text.String())
	return err
}

func (s *screen) line(text *strings.Builder, cells []string, widths []int, colour func(string) string) {
	for i, cell := range cells {
		text.WriteString(s.paint(colour(cell), cell))
		if i < len(cells)-1 {
			text.WriteString(strings.Repeat(" ", widths[i]-columnsOf(cell)+2))
		}
	}
	text.WriteString("\n")
}

func (s *screen) blocks(text *strings.Builder, titles []string, rows [][]string) {
	for _, row := range rows {
		fmt.Fprintln(text, s.paint(bold, row[0]))
		for i, cell := range row[1:] {
			if cell != "-" {
				fmt.Fprintf(text, "  %s %s\n", s.paint(grey, strings.ToLower(titles[i+1])), s.paint(colourOf(cell), cell))
			}
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(text, strings.Join(titles, " "))
	}
}

// columnsOf is how many columns of a terminal a text takes: letters of East Asia take
// two, and marks on the letter before take none.
func columnsOf(text string) (n int) {
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 || r >= 0xf900 && r <= 0xfaff ||
			r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd):
			n += 2
		default:
			n++
		}
	}
	return n
}

// forPeople puts relative times and sizes with units in the place of those in an object.
func (s *screen) forPeople(o object) {
	for name, value := range o {
		switch v := value.(type) {
		case string:
			if isTimeField(name) {
				if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
					o[name] = relative(at, s.now())
				}
			}
		case json.Number:
			if n, err := v.Int64(); err == nil && isSizeField(name) {
				o[name] = bytesText(n)
			}
		case map[string]any:
			s.forPeople(v)
		}
	}
}

// isTimeField reports whether a field of the API holds a time. A name that looks like one
// stays as it is.
func isTimeField(name string) bool {
	return name == "at" || name == "since" || name == "seen" || name == "last_seen" || name == "last_used" || strings.HasSuffix(name, "_at")
}

func isSizeField(name string) bool {
	return strings.Contains(name, "traffic") || strings.HasSuffix(name, "_bytes") || name == "to_target" || name == "to_source"
}

// relative tells a time from now on: "3m ago", "in 2d". What is longer ago than a month
// is a date.
func relative(at, now time.Time) string {
	far := now.Sub(at)
	form := "%s ago"
	if far < 0 {
		far, form = -far, "in %s"
	}
	const day = 24 * time.Hour
	switch {
	case far < time.Second:
		return "now"
	case far < time.Minute:
		return fmt.Sprintf(form, fmt.Sprintf("%ds", far/time.Second))
	case far < time.Hour:
		return fmt.Sprintf(form, fmt.Sprintf("%dm", far/time.Minute))
	case far < 2*day:
		return fmt.Sprintf(form, fmt.Sprintf("%dh", far/time.Hour))
	case far < 31*day:
		return fmt.Sprintf(form, fmt.Sprintf("%dd", far/day))
	}
	return at.UTC().Format(time.DateOnly)
}
