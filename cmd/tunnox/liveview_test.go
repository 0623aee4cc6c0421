package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"rsc.io/qr"

	"github.com/tunnox-net/tunnox/agent"
)

var sgr = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// foreign is what a foreign name may be made of.
const foreign = "\x1b[2J\x1b[31mroot\u202e\u2066\r\n\u2028\x00\u009b5A日本語é🎉"

func pictured(names ...string) *liveView {
	ms := 12.34
	at := time.Date(2026, 11, 30, 14, 3, 22, 0, time.UTC)
	v := &liveView{keys: true, known: true, note: foreign, status: agent.Status{ClientID: 600000000, Online: true, Servers: []string{"tunnox.example.org:8080"},
		Sessions: []agent.SessionStatus{{Node: "node-001", Transport: "quic", RoundTrip: &ms}, {Node: foreign, Transport: "tls", Leaving: true}}}}
	for _, name := range names {
		t := &liveTunnel{name: name, address: "https://brave-otter.t.example.org/" + foreign, leads: "http://127.0.0.1:3000", code: "https://brave-otter.t.example.org/", more: []string{foreign}, warning: foreign}
		t.measured(agent.TunnelTraffic{}, at)
		for i := range 45 {
			traffic := agent.TunnelTraffic{Open: 3, Connections: int64(i), Failed: 2, ToService: int64(i * 1000), FromService: int64(i*i) * 1_000_000}
			for n := range i {
				traffic.Requests = append(traffic.Requests, agent.Request{At: at, Method: "GET", Target: fmt.Sprintf("/%s/%d", foreign, n), Status: 200 + 100*(n%4), Millis: float64(n * n * n), From: foreign})
				traffic.Passages = append(traffic.Passages, agent.Passage{At: at, From: foreign, Open: n%2 == 0, Code: "dial_refused", Message: foreign})
			}
			t.measured(traffic, at.Add(time.Duration(i)*time.Second))
		}
		v.tunnels = append(v.tunnels, t)
	}
	return v
}

// TestFramesFitTheTerminal: whatever the sizes are, and whatever names others have, no
// line is wider than the terminal, there are no more lines than it has, and nothing in
// them moves the cursor.
func TestFramesFitTheTerminal(t *testing.T) {
	failed := pictured("", "b")
	failed.tunnels[0].failure, failed.tunnels[1].address = errors.New(foreign).Error(), ""
	for what, v := range map[string]*liveView{"one": pictured(""), "three": pictured("web", foreign, "ssh"), "failed": failed} {
		for _, v.pen = range []pen{{}, {colour: true}, {utf8: true}, {colour: true, utf8: true}} {
			for v.showCode = range 2 {
				for width := 1; width < 140; width += 1 + width/5 {
					for height := 1; height < 60; height += 1 + height/4 {
						lines := v.frame(width, height)
						if len(lines) > height {
							t.Fatalf("%s, %dx%d: %d lines", what, width, height, len(lines))
						}
						for _, line := range lines {
							plain := sgr.ReplaceAllString(line, "")
							for _, r := range plain {
								if !unicode.IsPrint(r) || !v.utf8 && r > unicode.MaxASCII {
									t.Fatalf("%s, %dx%d: %q has %U", what, width, height, line, r)
								}
							}
							if columnsOf(plain) > max(width, leastWidth) {
								t.Fatalf("%s, %dx%d: %q takes %d columns", what, width, height, plain, columnsOf(plain))
							}
							if !v.colour && plain != line {
								t.Fatalf("%s: colours in %q", what, line)
							}
						}
					}
				}
			}
		}
	}
}

// TestAFrameTellsWhatMatters: the address stands whole on the first lines, and what is
// wrong with the service is said in words that say what to do.
func TestAFrameTellsWhatMatters(t *testing.T) {
	v := &liveView{pen: pen{utf8: true}, tunnels: []*liveTunnel{{address: "https://brave-otter.t.example.org/", leads: "http://127.0.0.1:3000"}}}
	v.tunnels[0].traffic.Passages = []agent.Passage{{Code: "dial_refused", Message: "the service refused the connection"}}
	for _, width := range []int{80, 40, 20} {
		text := strings.Join(v.frame(width, 24), "\n")
		if whole := strings.ReplaceAll(text, "\n", ""); !strings.HasPrefix(whole, "https://brave-otter.t.example.org/") {
			t.Errorf("%d columns:\n%s", width, text)
		}
		words := strings.Join(strings.Fields(text), " ")
		if width >= 40 && !strings.Contains(words, "nothing listens on 127.0.0.1:3000: start the service") {
			t.Errorf("%d columns do not say what to do:\n%s", width, text)
		}
	}
}

// TestAQRCodeIsDrawnAsItIs reads the letters back into modules.
func TestAQRCodeIsDrawnAsItIs(t *testing.T) {
	const text = "https://brave-otter.t.example.org/"
	p := pen{utf8: true}
	lines, why := p.qrCode(text, 80, 23)
	if why != "" {
		t.Fatal(why)
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != (code.Size+2*quiet+1)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), code.Size)
	}
	for y := range code.Size + 2*quiet {
		for x := range code.Size + 2*quiet {
			letter := []rune(lines[y/2])[x]
			light := letter == '█' || y%2 == 0 && letter == '▀' || y%2 == 1 && letter == '▄'
			inside := x >= quiet && y >= quiet && x < code.Size+quiet && y < code.Size+quiet
			if dark := inside && code.Black(x-quiet, y-quiet); light == dark {
				t.Fatalf("the module %d,%d is drawn as %q", x, y, letter)
			}
		}
	}
	if _, why := p.qrCode(text, 20, 10); !strings.Contains(why, "needs a terminal of") {
		t.Errorf("a small terminal: %q", why)
	}
	if _, why := (pen{}).qrCode(text, 80, 24); !strings.Contains(why, "UTF-8") {
		t.Errorf("without UTF-8: %q", why)
	}
}
