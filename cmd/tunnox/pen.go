package main

import (
	"runtime"
	"strings"
	"unicode"
)

// pen writes lines that fit a terminal: for one without colours, and for one that knows
// ASCII only.
type pen struct {
	colour, utf8 bool
}

// speaksUTF8 tells whether the terminal shows more than ASCII, by the first of the
// variables that a system reads for that (POSIX, 8.2).
func (s surroundings) speaksUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(s.variable(name)); value != "" {
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return runtime.GOOS == "windows" // elsewhere it is the locale C
}

// clean gives text of others on one line, in letters that the terminal has.
func (p pen) clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || !p.utf8 && r > unicode.MaxASCII {
			return '?'
		}
		return r
	}, text)
}

func (p pen) paint(colour, text string) string {
	if !p.colour || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// cut shortens text to a number of columns, and says with dots that it did.
func (p pen) cut(text string, columns int) string {
	if columnsOf(text) <= columns {
		return text
	}
	dots := "..."
	if p.utf8 {
		dots = "…"
	}
	if columns <= columnsOf(dots) {
		return strings.Repeat(".", max(columns, 0))
	}
	return head(text, columns-columnsOf(dots)) + dots
}

// head gives as much of the beginning of a text as columns hold.
func head(text string, columns int) string {
	for i, r := range text {
		if columns -= columnsOf(string(r)); columns < 0 {
			return text[:i]
		}
	}
	return text
}

// pad fills text up to a number of columns.
func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(columns-columnsOf(text), 0))
}

// wrap breaks text into lines, between words where it can. Nothing is lost, so that an
// address can still be copied.
func wrap(text string, columns int) (lines []string) {
	columns = max(columns, 2) // some letters take two
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && columnsOf(line)+1+columnsOf(word) <= columns {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		for line = word; columnsOf(line) > columns; {
			begin := head(line, columns)
			lines, line = append(lines, begin), line[len(begin):]
		}
	}
	return append(lines, line)
}

// bars are the heights of a sparkline, from nothing to the highest.
var (
	bars      = []rune("▁▂▃▄▅▆▇█")
	plainBars = []rune("_.:-=+*#")
)

// spark draws numbers as a line of bars, beside the highest of them.
func (p pen) spark(values []float64) string {
	heights := bars
	if !p.utf8 {
		heights = plainBars
	}
	highest := 0.0
	for _, v := range values {
		highest = max(highest, v)
	}
	var line strings.Builder
	for _, v := range values {
		at := 0
		if highest > 0 && v > 0 {
			at = max(1, int(v/highest*float64(len(heights)-1)+0.5)) // what is little is not nothing
		}
		line.WriteRune(heights[at])
	}
	return line.String()
}
