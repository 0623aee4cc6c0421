package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/wire"
)

// liveView is what a program in the foreground shows on a terminal. [live] keeps it up to
// date; here it becomes lines.
type liveView struct {
	pen
	tunnels  []*liveTunnel
	status   agent.Status // of the agent that holds them
	known    bool         // whether it was ever read
	away     bool         // the server
	note     string       // the latest sentence that belongs to no tunnel
	keys     bool         // whether keys are read
	showCode int          // the QR code of this tunnel is shown, counted from 1; 0 = none
}

// liveTunnel is one tunnel of a view.
type liveTunnel struct {
	name    string // "" = there is one only
	address string // "" = not ready yet
	leads   string
	code    string   // what a QR code of it says, "" = nothing that people scan
	more    []string // lines that belong to it
	parting string   // what it is called when it has ended, "" = by its address
	warning string
	warned  int64 // how many connections there were when it was warned of the service
	failure string
	inward  bool // connections come in at this machine

	traffic       agent.TunnelTraffic
	in, out       []float64 // bytes a second to and from the service, the latest last
	before, after int64     // numbers of the last look
	looked        time.Time
}

// maxSamples is how many rates a sparkline can show.
const maxSamples = 40

// measured takes in new numbers.
func (t *liveTunnel) measured(traffic agent.TunnelTraffic, now time.Time) {
	if took := now.Sub(t.looked).Seconds(); !t.looked.IsZero() && took > 0 {
		rate := func(values []float64, n int64) []float64 {
			values = append(values, max(float64(n), 0)/took)
			return values[max(0, len(values)-maxSamples):]
		}
		t.in, t.out = rate(t.in, traffic.ToService-t.before), rate(t.out, traffic.FromService-t.after)
	}
	if traffic.Connections > t.warned {
		t.warning = "" // the service is there
	}
	t.traffic, t.looked, t.before, t.after = traffic, now, traffic.ToService, traffic.FromService
}

// trouble says what is wrong with a tunnel and what to do, "" = nothing.
func (t *liveTunnel) trouble() string {
	switch {
	case t.failure != "":
		return t.failure
	case len(t.traffic.Passages) > 0 && t.traffic.Passages[0].Code != "":
		last := t.traffic.Passages[0]
		text := "the last connection failed: " + last.Message
		if wire.Code(last.Code) == wire.DialRefused && !t.inward {
			text = "nothing listens on " + strings.TrimPrefix(strings.TrimPrefix(t.leads, "http://"), "https://") + ": start the service; the tunnel stays open"
		}
		return text
	}
	return t.warning
}

// titled is a line with a word before it; its further lines stand below the first.
func (v *liveView) titled(word, colour, text string, width int) (lines []string) {
	const indent = 10
	if width < 50 { // there is no room for a column of words
		for i, line := range wrap(word+" "+text, width-2) {
			if i > 0 {
				line = "  " + line
			}
			lines = append(lines, v.paint(colour, line))
		}
		return lines
	}
	for i, line := range wrap(text, width-indent) {
		if i > 0 {
			word = ""
		}
		lines = append(lines, v.paint(grey, pad(word, indent))+v.paint(colour, line))
	}
	return lines
}

// leastWidth is for how many columns lines are made at least; a terminal with fewer cuts
// them.
const leastWidth = 16

// frame gives the lines for a terminal, none wider and no more than it has.
func (v *liveView) frame(width, height int) []string {
	width, height = max(width, leastWidth), max(height, 1)
	footer := v.footer(width)
	if v.showCode > 0 && v.showCode <= len(v.tunnels) {
		t := v.tunnels[v.showCode-1]
		lines, why := v.qrCode(t.code, width, height-1)
		if why != "" {
			lines = wrap(v.clean(why), width)
		} else if rows := wrap(v.clean(t.code), width); len(lines)+len(rows) < height {
			lines = append(lines, rows...)
		}
		return v.fit(lines, nil, footer, height)
	}
	top, table := v.single, v.connections
	if len(v.tunnels) != 1 || v.tunnels[0].name != "" {
		top, table = v.several, v.connections
	}
	lines := top(width)
	return v.fit(lines, table(width, height-len(lines)-3), footer, height)
}

// fit puts the parts into the height. The footer is the last line; what has no room goes,
// from the end.
func (v *liveView) fit(lines, table []string, footer string, height int) []string {
	if len(table) > 1 && len(lines)+len(table)+2 <= height {
		lines = append(append(lines, ""), table...)
	}
	if height < 2 {
		return lines[:min(len(lines), height)]
	}
	lines = lines[:min(len(lines), height-1)]
	for len(lines) < height-1 {
		lines = append(lines, "")
	}
	return append(lines, footer)
}

func (v *liveView) footer(width int) string {
	words := []string{"Ctrl-C ends it"}
	if len(v.tunnels) > 1 {
		words[0] = "Ctrl-C ends them"
	}
	if v.keys && (v.showCode > 0 || v.next() > 0) {
		words = append(words, "c: QR code")
		if v.showCode > 0 {
			words[1] = "c: back"
			if v.next() > 0 {
				words[1] = "c: next QR code"
			}
		}
	}
	return v.paint(grey, v.cut(strings.Join(words, "   "), width))
}

// next gives the tunnel after the one whose QR code is shown that has a code, 0 for none.
func (v *liveView) next() int {
	for i := v.showCode; i < len(v.tunnels); i++ {
		if t := v.tunnels[i]; t.code != "" && t.address != "" {
			return i + 1
		}
	}
	return 0
}

// single shows one tunnel.
func (v *liveView) single(width int) (lines []string) {
	t := v.tunnels[0]
	for _, line := range wrap(v.clean(t.address), width) {
		lines = append(lines, v.paint(bold, line))
	}
	if t.leads != "" {
		lines = append(lines, wrap("-> "+v.clean(t.leads), width)...)
	}
	for _, line := range t.more {
		lines = append(lines, wrap(v.clean(line), width)...)
	}
	lines = append(lines, "")
	lines = append(lines, v.state(width)...)
	if text := t.trouble(); text != "" {
		lines = append(lines, v.titled("warning", yellow, v.clean(text), width)...)
	}
	lines = append(lines, "")
	in, out := "received", "sent" // as the service would say it
	if t.inward {
		in, out = out, in
	}
	lines = append(lines, v.rate(in, t.in, t.traffic.ToService, width), v.rate(out, t.out, t.traffic.FromService, width))
	return append(lines, v.titled("now", "", counts(t.traffic), width)...)
}

// counts tells of connections in words.
func counts(t agent.TunnelTraffic) string {
	text := fmt.Sprintf("%s open, %d since the start", connections(int64(t.Open)), t.Connections)
	if t.Failed > 0 {
		text += fmt.Sprintf(", %d failed", t.Failed)
	}
	return text
}

func connections(n int64) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

// state shows the machine and its sessions.
func (v *liveView) state(width int) (lines []string) {
	if v.away || v.known && !v.status.Online {
		lines = v.titled("offline", yellow, "the server is away; trying again until it is back", width)
	} else if v.known {
		at := ""
		if len(v.status.Servers) > 0 {
			at = ", at " + v.clean(strings.Join(v.status.Servers, ", "))
		}
		lines = v.titled("online", green, fmt.Sprintf("as client %d%s", v.status.ClientID, at), width)
	}
	for _, s := range v.status.Sessions {
		text := v.clean(s.Node) + " over " + v.clean(s.Transport)
		switch {
		case s.RoundTrip != nil:
			text += fmt.Sprintf(", %s round trip", millis(*s.RoundTrip))
		default:
			text += ", no answer for a second"
		}
		if s.Leaving {
			text += ", leaving"
		}
		lines = append(lines, v.titled("session", "", text, width)...)
	}
	if v.note != "" {
		lines = append(lines, v.titled("note", yellow, v.clean(v.note), width)...)
	}
	return lines
}

func millis(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.0f s", ms/1000)
}

// rate shows a direction: how fast, a line of what was, and all of it.
func (v *liveView) rate(word string, values []float64, all int64, width int) string {
	now := 0.0
	if len(values) > 0 {
		now = values[len(values)-1]
	}
	text := pad(word, 10) + pad(bytesText(int64(now))+"/s", 11)
	total := "  " + bytesText(all)
	room := min(width-columnsOf(text)-columnsOf(total), maxSamples)
	if room < 5 {
		return v.cut(text+total, width)
	}
	shown := values[max(0, len(values)-room):]
	line := v.spark(shown) + strings.Repeat(" ", room-len(shown))
	return v.paint(grey, pad(word, 10)) + pad(bytesText(int64(now))+"/s", 11) + v.paint(green, line) + total
}

// several shows the tunnels of a file, one line each.
func (v *liveView) several(width int) (lines []string) {
	lines = append(lines, v.state(width)...)
	lines = append(lines, "")
	names, addresses := 4, 7
	for _, t := range v.tunnels {
		names, addresses = max(names, columnsOf(v.clean(t.name))), max(addresses, columnsOf(v.clean(t.address)))
	}
	names = min(names, max(width/4, 4))
	rates := width >= names+2+addresses+2+30
	for _, t := range v.tunnels {
		name := v.paint(bold, pad(v.cut(v.clean(t.name), names), names)) + "  "
		address := v.clean(t.address)
		if address == "" {
			address = "not ready yet"
		}
		if rates && t.address != "" {
			now := func(values []float64) string {
				if len(values) == 0 {
					return bytesText(0) + "/s"
				}
				return bytesText(int64(values[len(values)-1])) + "/s"
			}
			address = pad(address, addresses) + "  " + pad(fmt.Sprintf("%d open", t.traffic.Open), 9) + pad(now(t.in), 11) + now(t.out)
		}
		for i, line := range wrapColumns(address, width-names-2) {
			if i > 0 {
				name = strings.Repeat(" ", names+2)
			}
			lines = append(lines, name+line)
		}
		if text := t.trouble(); text != "" {
			for _, line := range wrap(v.clean(text), width-names-2) {
				lines = append(lines, strings.Repeat(" ", names+2)+v.paint(yellow, line))
			}
		}
	}
	return lines
}

// wrapColumns is wrap for text whose blanks are to stay: it is cut where a line is full.
func wrapColumns(text string, columns int) (lines []string) {
	columns = max(columns, 2)
	for columnsOf(text) > columns {
		begin := head(text, columns)
		lines, text = append(lines, begin), text[len(begin):]
	}
	return append(lines, text)
}

// connections shows the latest requests, or connections where there are none.
func (v *liveView) connections(width, height int) (lines []string) {
	type row struct {
		at                   time.Time
		what, how, took, who string
		colour               string
	}
	var rows []row
	for _, t := range v.tunnels {
		before := ""
		if t.name != "" {
			before = t.name + ": "
		}
		for _, r := range t.traffic.Requests {
			one := row{at: r.At, what: before + r.Method + " " + r.Target, how: fmt.Sprint(r.Status), who: r.From}
			switch {
			case r.Error != "" && r.Status == 0:
				one.how, one.colour = "cut off", red
			case r.Status == 0:
				one.how = "waits"
			case r.Status >= 500:
				one.colour = red
			case r.Status >= 400:
				one.colour = yellow
			default:
				one.colour = green
			}
			if r.Millis > 0 {
				one.took = millis(r.Millis)
			}
			rows = append(rows, one)
		}
		for _, p := range t.traffic.Passages {
			if len(t.traffic.Requests) > 0 && p.Code == "" {
				continue // its requests are shown
			}
			one := row{at: p.At, what: before + "from " + p.From, how: "ended", took: millis(p.Seconds * 1000)}
			if t.inward && t.name == "" {
				one.what = "with " + p.From
			}
			switch {
			case p.Code != "":
				one.how, one.colour, one.took = "failed", red, ""
			case p.Open:
				one.how, one.colour = "open", green
			}
			rows = append(rows, one)
		}
	}
	sortRows(rows, func(r row) time.Time { return r.at })
	const status, took = 8, 9
	for _, r := range rows {
		if len(lines) >= height {
			break
		}
		at := r.at.Local().Format(time.TimeOnly) + "  "
		if width < 36 {
			at = ""
		}
		room := width - len(at) - status - took
		if room < 8 {
			lines = append(lines, v.cut(v.clean(r.what), width))
			continue
		}
		lines = append(lines, v.paint(grey, at)+pad(v.cut(v.clean(r.what), room-2), room)+v.paint(r.colour, pad(r.how, status))+pad(r.took, took))
	}
	if len(lines) > 0 {
		lines = append([]string{v.paint(bold, v.cut("Latest", width))}, lines...)
	}
	return lines
}

// sortRows puts the latest first, and leaves those of one moment as they are.
func sortRows[R any](rows []R, at func(R) time.Time) {
	slices.SortStableFunc(rows, func(a, b R) int { return at(b).Compare(at(a)) })
}
