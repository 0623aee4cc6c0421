package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"rsc.io/qr"
)

// quiet is how many light modules are around a QR code: with fewer, cameras miss it.
const quiet = 2

// qrCode draws text as a QR code, two modules in a letter, for terminals that are wide
// and high enough. It gives the reason where it cannot.
func (p pen) qrCode(text string, width, height int) (lines []string, why string) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, "this is too long for a QR code"
	}
	if !p.utf8 {
		return nil, "a QR code needs a terminal with UTF-8, for example LANG=C.UTF-8"
	}
	side := code.Size + 2*quiet
	if rows := (side + 1) / 2; side > width || rows > height {
		return nil, fmt.Sprintf("the QR code needs a terminal of %d columns and %d lines", side, rows+1)
	}
	// Light modules are drawn: most terminals are dark. Where there are colours they are set,
	// so that it is dark on light everywhere.
	light := func(x, y int) bool { return y < side && !code.Black(x-quiet, y-quiet) }
	for y := 0; y < side; y += 2 {
		var line strings.Builder
		for x := range side {
			switch above, below := light(x, y), light(x, y+1); {
			case above && below:
				line.WriteRune('█')
			case above:
				line.WriteRune('▀')
			case below:
				line.WriteRune('▄')
			default:
				line.WriteRune(' ')
			}
		}
		lines = append(lines, p.paint("97;40", line.String()))
	}
	return lines, ""
}

// showQR prints text as a QR code below what was printed, or says why it cannot.
func (s surroundings) showQR(out io.Writer, text string) error {
	p, width := pen{utf8: s.speaksUTF8()}, math.MaxInt // in a pipe nobody knows
	if screen, ok := out.(*screen); ok {
		p.colour, width = screen.colour, screen.width()
	}
	lines, why := p.qrCode(text, width, math.MaxInt)
	if why != "" {
		_, err := fmt.Fprintf(s.stderr, "tunnox: %s\n", why)
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", strings.Join(lines, "\n"))
	return err
}
