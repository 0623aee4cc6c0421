package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/checkup"
)

const doctorLong = `Look for what hinders a server with these settings: the data directory, the disk,
addresses in use, the limit of descriptors, Postgres and its schema, Redis, certificates,
and the DNS of the base domain. Each line that is not ok says what to do. Give it the
settings of the server: the same flags, environment or --config.

A server may be running with these settings; nothing of it is changed. In Postgres and
Redis it writes something that it removes again.

The state of a check is ok, note (works, but look at it) or failed. The status is 0 when
nothing has failed, and 1 when something has.`

// doctorSettings are those of every role.
var doctorSettings = slices.Concat(serveSettings, []string{"redis-file", "control", "join-token-file", "node-cert", "node-key", "cluster-ca"})

// examLimit bounds each question to another service.
const examLimit = 5 * time.Second

// exam looks for faults of a server.
type exam struct {
	report  checkup.Report
	cfg     *config
	running map[string]string // what a running server with this data directory has bound; nil: none runs
}

// doctor does all checks and prints them.
func doctor(ctx context.Context, cfg *config, asJSON bool, out io.Writer) error {
	if cfg.Control == "" && cfg.RedisFile == "" {
		cfg.tryOut()
	}
	e := &exam{cfg: cfg}
	e.data()
	e.descriptors(ctx)
	e.addresses()
	if cfg.Postgres != "" {
		e.postgres(ctx)
	} else if cfg.Redis == "" && cfg.RedisFile == "" {
		e.embedded(ctx)
	}
	if cfg.Redis != "" || cfg.RedisFile != "" {
		e.redis(ctx)
	}
	e.certificates()
	e.names(ctx)
	var err error
	if asJSON {
		err = e.report.JSON(out)
	} else {
		err = e.report.Print(out, nil)
	}
	return errors.Join(err, e.report.Err())
}

// Space on the disk of the data directory.
const (
	diskNoted  = 1 << 30
	diskFailed = 100 << 20
)

// data checks the data directory: whether it can be written, by whom it is used, and the
// disk it is on.
func (e *exam) data() {
	path, err := filepath.Abs(e.cfg.Data)
	if err != nil {
		e.report.Fail("data", "give another --data", "%v", err)
		return
	}
	disk := path
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		e.report.Well("data", "%s does not exist; the first start makes it", path)
		for disk = filepath.Dir(disk); disk != filepath.Dir(disk); disk = filepath.Dir(disk) {
			if _, err := os.Stat(disk); err == nil {
				break
			}
		}
	case err != nil:
		e.report.Fail("data", "let the account of the server enter the directory", "%v", err)
		return
	case !info.IsDir():
		e.report.Fail("data", "give a directory with --data", "%s is no directory", path)
		return
	default:
		e.used(path)
	}
	var free syscall.Statfs_t
	if err := syscall.Statfs(disk, &free); err != nil {
		e.report.Note("disk", "look at the disk", "%s: %v", disk, err)
		return
	}
	left := uint64(free.Bavail) * uint64(free.Bsize) //nolint:unconvert // the types differ between systems
	const do = "free some space, or move --data to another disk"
	switch text := fmt.Sprintf("%s free at %s", bytesText(left), disk); {
	case left < diskFailed:
		e.report.Fail("disk", do+"; a server without space takes no commands", "%s", text)
	case left < diskNoted:
		e.report.Note("disk", do, "%s", text)
	default:
		e.report.Well("disk", "%s", text)
	}
}

// used tells whether the directory can be written, and whether a server uses it.
func (e *exam) used(path string) {
	d := &dataDir{path: path}
	if err := d.checkFiles(os.Geteuid()); err != nil {
		e.report.Fail("data", "do what the message says; or run this as the account of the server", "%v", err)
		return
	}
	lock, err := os.OpenFile(d.file("lock"), os.O_RDWR, 0)
	if err == nil {
		held := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		_ = lock.Close() // at once: a server that starts now wants the lock
		if errors.Is(held, syscall.EWOULDBLOCK) {
			e.running = map[string]string{}
			if b, err := os.ReadFile(d.file("addresses.json")); err == nil {
				_ = json.Unmarshal(b, &e.running) // a server that is starting has none yet
			}
			e.report.Well("data", "%s is in use by a server that runs", path)
			return
		}
	}
	probe, err := os.CreateTemp(path, ".doctor-*")
	if err == nil {
		_, err = probe.Write([]byte("x"))
		err = errors.Join(err, probe.Sync(), probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		e.report.Fail("data", "let the account of the server write there: chown it, and see whether the disk is full or read-only", "%v", err)
		return
	}
	e.report.Well("data", "%s can be written, and no server uses it", path)
}

// bytesText gives a size for people.
func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MB", n>>20)
}

// quiet is for parts that have a log, whose errors become lines here.
var quiet = slog.New(slog.DiscardHandler)
