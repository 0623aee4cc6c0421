package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/tunnox-net/tunnox/agent"
)

// How often things are looked at. The size of the terminal is one of them: not every
// system tells when it changes.
const (
	drawEvery   = 200 * time.Millisecond
	lookEvery   = time.Second
	lookTimeout = 3 * time.Second
)

// What is said to the terminal (ECMA-48, and xterm's private modes). A line that is too
// long is cut by the terminal while wrapping is off, so that it cannot move the others.
const (
	enterScreen = "\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[2J"
	leaveScreen = "\x1b[?25h\x1b[?7h\x1b[?1049l"
	home        = "\x1b[H"
	emptyLine   = "\x1b[2K"
	restOfAll   = "\x1b[J"
)

// live shows tunnels on a terminal until it is closed, from when the first of them is
// ready: what is refused before is said in plain lines. What others write to it meanwhile
// is shown as a note.
type live struct {
	screen *screen
	keys   *os.File // the terminal as input; nil: it is not one
	stderr io.Writer
	stop   func() // ends the program as Ctrl-C does

	mu     sync.Mutex // guards all below
	view   liveView
	agents map[*liveTunnel]liveAgent
	begun  bool
	closed bool
	before *term.State // of keys
	drawn  string
	size   [2]int
	tasks  sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

// liveAgent is who holds a tunnel, and its number there.
type liveAgent struct {
	http *http.Client
	id   int64
}

// live gives the view of this program, nil where there is no terminal that can show it,
// or somebody wants plain lines.
func (f *foreground) live(stop func()) *live {
	out, ok := f.stdout.(*screen)
	if !ok || f.json || f.plain || !isTerminal(f.stderr) || f.variable("TERM") == "" && !windowsTerminal(f.surroundings) || f.variable("TERM") == "dumb" || !atFront(out.File) {
		return nil
	}
	l := &live{screen: out, stderr: f.stderr, stop: stop, agents: map[*liveTunnel]liveAgent{}}
	l.view.pen = pen{colour: out.colour, utf8: f.speaksUTF8()}
	if in, ok := f.stdin.(*os.File); ok && isTerminal(in) && atFront(in) {
		l.keys, l.view.keys = in, true
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// tunnel adds one. Of several each has a name.
func (l *live) tunnel(name string) *liveTunnel {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &liveTunnel{name: name}
	at, _ := slices.BinarySearchFunc(l.view.tunnels, t, func(a, b *liveTunnel) int { return strings.Compare(a.name, b.name) })
	l.view.tunnels = slices.Insert(l.view.tunnels, at, t)
	return t
}

// remove takes one away.
func (l *live) remove(t *liveTunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view.tunnels = slices.DeleteFunc(l.view.tunnels, func(other *liveTunnel) bool { return other == t })
	delete(l.agents, t)
	l.view.showCode = 0
}

// attached notes which agent holds a tunnel.
func (l *live) attached(t *liveTunnel, agent *http.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agents[t] = liveAgent{http: agent}
}

// news takes in what happens to a tunnel.
func (l *live) news(t *liveTunnel, wanted spec, n agent.TunnelNews) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n.Event {
	case "ready":
		asJSON, text := wanted.ready(n)
		t.show(asJSON, text)
		t.failure, t.inward = "", n.Listen != ""
		t.looked = time.Time{}
		l.agents[t] = liveAgent{http: l.agents[t].http, id: n.ID}
		l.view.away = false
		l.begin()
	case "warning":
		t.warning, t.warned = n.Message, t.traffic.Connections
	case "offline":
		l.view.away = true
	case "online":
		l.view.away = false
	}
}

// show takes the parts of a tunnel from what is said of it in a pipe.
func (t *liveTunnel) show(asJSON map[string]any, text string) {
	lines := strings.Split(text, "\n")
	t.address, t.leads, _ = strings.Cut(strings.TrimPrefix(lines[0], "ready: "), " -> ")
	t.more, t.code = lines[1:], ""
	if url, ok := asJSON["url"].(string); ok {
		t.code = url
	}
	if _, ok := asJSON["code"]; ok && len(lines) > 2 { // what the other machine is to run comes first
		t.address, t.leads = strings.TrimSpace(lines[1]), strings.TrimSuffix(strings.TrimPrefix(lines[0], "ready: "), " is shared while this program runs. On the other machine:")
		t.code, _ = asJSON["code"].(string)
		t.more, t.parting = lines[2:], t.leads
	}
}

// failed notes that one of several tunnels has ended.
func (l *live) failed(t *liveTunnel, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.failure = err.Error(); !l.begun {
		fmt.Fprintf(l.stderr, "tunnox: %s: %s\n", oneLine(t.name), eachLine(t.failure))
	}
}

// Write takes what the program would have said on standard error.
func (l *live) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun || l.closed {
		return l.stderr.Write(b)
	}
	text := strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", " ")
	l.view.note = strings.TrimPrefix(text, "tunnox: ")
	return len(b), nil
}

// begin takes the terminal. mu is held.
func (l *live) begin() {
	if l.begun || l.closed {
		return
	}
	l.begun = true
	if l.keys != nil {
		state, err := term.MakeRaw(int(l.keys.Fd()))
		if err != nil {
			l.keys, l.view.keys = nil, false
		} else {
			l.before = state
			go l.read() // ends with the program: a read from a terminal cannot be cancelled
		}
	}
	_, _ = io.WriteString(l.screen.File, enterScreen)
	l.tasks.Go(l.draw)
	l.tasks.Go(l.look)
}

// read takes keys.
func (l *live) read() {
	key := make([]byte, 1)
	for {
		if n, err := l.keys.Read(key); err != nil || n == 0 {
			return
		}
		switch key[0] {
		case 3: // Ctrl-C, which raw terminals do not make a signal of
			l.release() // so that another one is a signal
			l.stop()
			return
		case 'c', 'C':
			l.mu.Lock()
			l.view.showCode = l.view.next()
			l.mu.Unlock()
		default:
			l.mu.Lock()
			l.view.showCode = 0
			l.mu.Unlock()
		}
	}
}

// draw writes what has changed, until the view is closed.
func (l *live) draw() {
	for {
		l.mu.Lock()
		width, height, err := term.GetSize(int(l.screen.Fd()))
		if err != nil || width < 1 || height < 1 {
			width, height = 80, 24
		}
		lines := l.view.frame(width, height)
		// A line is emptied before it is written: after it the cursor may stand on its last letter.
		text := home + emptyLine + strings.Join(lines, "\r\n"+emptyLine)
		if size := [2]int{width, height}; size != l.size {
			l.size, text = size, restOfAll+text // what the terminal has made of the lines is not known
			text = home + text
		}
		if !l.closed && text != l.drawn {
			l.drawn = text
			_, _ = io.WriteString(l.screen.File, text)
		}
		l.mu.Unlock()
		if !l.pause(drawEvery) {
			return
		}
	}
}

// look asks the agents for their numbers, until the view is closed.
func (l *live) look() {
	for {
		l.mu.Lock()
		asked := map[*liveTunnel]liveAgent{}
		for t, a := range l.agents {
			if a.id != 0 {
				asked[t] = a
			}
		}
		l.mu.Unlock()
		first := true
		for t, a := range asked {
			var traffic agent.TunnelTraffic
			if l.ask(a.http, fmt.Sprintf("/tunnels/%d", a.id), &traffic) {
				l.mu.Lock()
				t.measured(traffic, time.Now())
				l.mu.Unlock()
			}
			var status agent.Status
			if first && l.ask(a.http, "/status", &status) {
				l.mu.Lock()
				l.view.status, l.view.known = status, true
				l.mu.Unlock()
				first = false
			}
		}
		if !l.pause(lookEvery) {
			return
		}
	}
}

func (l *live) ask(client *http.Client, path string, into any) bool {
	ctx, cancel := context.WithTimeout(l.ctx, lookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = io.Copy(&body, io.LimitReader(resp.Body, 4<<20))
	return err == nil && resp.StatusCode == http.StatusOK && json.Unmarshal(body.Bytes(), into) == nil
}

func (l *live) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// release gives the terminal back as it was, and says what there was.
func (l *live) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	if l.closed {
		return
	}
	if l.closed = true; !l.begun {
		return
	}
	_, _ = io.WriteString(l.screen.File, leaveScreen)
	if l.before != nil {
		_ = term.Restore(int(l.keys.Fd()), l.before)
	}
	for _, t := range l.view.tunnels {
		if t.address == "" {
			continue
		}
		name := ""
		if t.name != "" {
			name = t.name + ": "
		}
		fmt.Fprintf(l.screen.File, "%s\n", oneLine(fmt.Sprintf("ended: %s%s, %s, %s to the service, %s from it", name, cmp.Or(t.parting, t.address), connections(t.traffic.Connections),
			bytesText(t.traffic.ToService), bytesText(t.traffic.FromService))))
	}
}

// close ends the view.
func (l *live) close() {
	l.release()
	l.tasks.Wait()
}

// run holds a tunnel and shows it: on a terminal as it goes, elsewhere in plain lines.
func (f *foreground) run(ctx context.Context, wanted spec) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	l := f.live(stop)
	if l == nil {
		return f.hold(ctx, wanted.wish, f.shown(wanted.ready))
	}
	defer l.close()
	f.stderr = l
	return f.heldLive(ctx, l, l.tunnel(""), wanted)
}

// heldLive is hold for a tunnel that a view shows.
func (f *foreground) heldLive(ctx context.Context, l *live, t *liveTunnel, wanted spec) error {
	wanted.wish.Watch = true
	f.attached = func(agent *http.Client) { l.attached(t, agent) }
	return f.hold(ctx, wanted.wish, func(n agent.TunnelNews) error {
		l.news(t, wanted, n)
		return nil
	})
}
