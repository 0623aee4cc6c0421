package ingress

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is one line of an access log.
type Entry struct {
	Time      time.Time `json:"time"`
	Visitor   string    `json:"visitor"` // address; behind a trusted proxy, the one that the proxy names
	Host      string    `json:"host"`
	Mapping   int64     `json:"mapping_id,omitempty"` // 0 = none has this host and path
	User      string    `json:"user,omitempty"`       // of the mapping's access rules
	Method    string    `json:"method"`
	Path      string    `json:"path"` // escaped, without the query, in which many programs put secrets
	Protocol  string    `json:"protocol"`
	Status    int       `json:"status"`          // 0 = there was no answer
	Whole     bool      `json:"whole"`           // false: the answer was cut short
	Error     string    `json:"error,omitempty"` // the code of an answer that is Tunnox's own
	Received  int64     `json:"received"`        // bytes of the request's body; after an upgrade, all
	Sent      int64     `json:"sent"`            // bytes of the answer's body; after an upgrade, all
	Seconds   float64   `json:"seconds"`
	UserAgent string    `json:"user_agent,omitempty"`
}

const (
	logQueue = 4096        // entries that wait for the disk; those beyond are dropped
	logLook  = time.Second // how often it is looked whether the file was rotated
)

// AccessLog writes a line of JSON for each request into a file. When the file is renamed
// or removed, by logrotate for example, a new one is begun under the name within a
// second. A disk that is slow makes no request wait: entries are dropped and counted.
type AccessLog struct {
	path    string
	log     *slog.Logger
	entries chan Entry
	anew    chan chan struct{} // for who asks for the file to be opened again
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once
	dropped atomic.Int64

	// Of the goroutine that writes.
	file   *os.File
	out    *bufio.Writer
	failed bool // and said so
}

// OpenAccessLog opens or begins the file, and writes until Close.
func OpenAccessLog(path string, log *slog.Logger) (*AccessLog, error) {
	l := &AccessLog{path: path, log: log, entries: make(chan Entry, logQueue), anew: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the access log: %w", err)
	}
	go l.run()
	return l, nil
}

// Dropped is how many entries were not written.
func (l *AccessLog) Dropped() int64 { return l.dropped.Load() }

// Reopen looks at once whether the file was renamed or removed, and returns when the one
// under the name is open.
func (l *AccessLog) Reopen() {
	opened := make(chan struct{})
	select {
	case l.anew <- opened:
		<-opened
	case <-l.done:
	}
}

// Close writes what waits and closes the file.
func (l *AccessLog) Close() {
	l.once.Do(func() { close(l.stop) })
	<-l.done
}

// add never waits.
func (l *AccessLog) add(e Entry) {
	select {
	case l.entries <- e:
	default:
		l.dropped.Add(1)
	}
}

func (l *AccessLog) run() {
	defer close(l.done)
	look := time.NewTicker(logLook)
	defer look.Stop()
	for {
		select {
		case e := <-l.entries:
			l.write(e)
			if len(l.entries) == 0 {
				l.flush()
			}
		case <-look.C:
			l.look()
		case opened := <-l.anew:
			l.look()
			close(opened)
		case <-l.stop:
			for len(l.entries) > 0 {
				l.write(<-l.entries)
			}
			l.flush()
			if l.file != nil {
				_ = l.file.Close() // it was written
			}
			return
		}
	}
}

func (l *AccessLog) open() error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	l.file, l.out = file, bufio.NewWriterSize(file, 64<<10)
	return nil
}

func (l *AccessLog) write(e Entry) {
	line, err := json.Marshal(e)
	if err != nil || l.file == nil {
		l.dropped.Add(1)
		return
	}
	if _, err := l.out.Write(append(line, '\n')); err != nil {
		l.fail(err)
		l.dropped.Add(1)
	}
}

func (l *AccessLog) flush() {
	if l.file == nil {
		return
	}
	if err := l.out.Flush(); err != nil {
		l.fail(err)
	}
}

// fail says once what is wrong. A writer that has failed keeps its error, so that the
// file is opened again at the next look.
func (l *AccessLog) fail(err error) {
	if !l.failed {
		l.log.Error("the access log cannot be written; entries are dropped", "file", l.path, "error", err)
	}
	l.failed = true
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file = nil
}

// look opens the file again when another, or none, has its name.
func (l *AccessLog) look() {
	if l.file != nil {
		ours, err := l.file.Stat()
		named, err2 := os.Stat(l.path)
		if err == nil && err2 == nil && os.SameFile(ours, named) {
			return
		}
		l.flush() // entries may wait behind those that are in the buffer
		if l.file != nil {
			_ = l.file.Close() // it was written
			l.file = nil
		}
	}
	switch err := l.open(); {
	case err != nil:
		l.fail(err)
	case l.failed:
		l.failed = false
		l.log.Info("the access log is written again", "file", l.path)
	}
}
