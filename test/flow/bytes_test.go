package flow

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	"golang.org/x/sync/errgroup"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

const bulkStreams = 8

// bulkBytes are sent in each direction of each stream; fewer under the race detector.
var bulkBytes = map[bool]int64{false: 64 << 20, true: 4 << 20}[pace.Race]

// seed names a stream of random bytes: the number of the stream, and its direction.
func seed(stream, way byte) [32]byte { return [32]byte{stream, way, 0x5a} }

// bulk sends the bytes of one seed and then a half-close. At the same time it reads to
// the end and compares with the bytes of another seed.
func bulk(c *net.TCPConn, send, want [32]byte) error { return transfer(c, bulkBytes, send, want) }

// transfer is bulk with so many bytes.
func transfer(c *net.TCPConn, size int64, send, want [32]byte) error {
	var g errgroup.Group
	g.Go(func() error {
		if _, err := io.CopyN(c, rand.NewChaCha8(send), size); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		return c.CloseWrite()
	})
	g.Go(func() error {
		got, expected := sha256.New(), sha256.New()
		n, err := io.Copy(got, c)
		if err != nil || n != size {
			return fmt.Errorf("received %d of %d bytes: %w", n, size, err)
		}
		if _, err := io.CopyN(expected, rand.NewChaCha8(want), size); err != nil {
			return err
		}
		if !bytes.Equal(got.Sum(nil), expected.Sum(nil)) {
			return errors.New("received other bytes than were sent")
		}
		return nil
	})
	return g.Wait()
}

// TestBulk: eight streams at once, in both directions; every byte arrives unchanged.
func TestBulk(t *testing.T) {
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		served := make(chan error, bulkStreams)
		service := programs.Listen(t, func(c *net.TCPConn) {
			var id [1]byte
			_, err := io.ReadFull(c, id[:])
			if err == io.EOF {
				return // the connection that waited for the listener
			}
			if err == nil {
				err = bulk(c, seed(id[0], 1), seed(id[0], 0))
			}
			served <- err
		})
		m := p.mapping(t, service.Port)
		began := time.Now()
		var g errgroup.Group
		for id := range byte(bulkStreams) {
			c := programs.Dial(t, m.LocalPort)
			g.Go(func() error {
				if _, err := c.Write([]byte{id}); err != nil {
					return err
				}
				if err := bulk(c, seed(id, 0), seed(id, 1)); err != nil {
					return fmt.Errorf("stream %d: %w", id, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for range bulkStreams {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
		took := time.Since(began)
		t.Logf("%d MiB in %v: %.2f GB/s", 2*bulkStreams*bulkBytes>>20, took.Round(time.Millisecond), float64(2*bulkStreams*bulkBytes)/1e9/took.Seconds())
	})
}

// TestHalfClose: a request, its end, and half a second later an answer of 200 KB that
// arrives whole.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	answer := make([]byte, 200_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(answer)
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		late := programs.Listen(t, func(c *net.TCPConn) {
			request, err := io.ReadAll(c)
			if err != nil || len(request) == 0 {
				return
			}
			time.Sleep(500 * time.Millisecond) // the case under test: the answer comes long after the end of the request
			_, _ = c.Write(answer)
		})
		m := p.mapping(t, late.Port)
		got, err := programs.Ask(m.LocalPort, []byte("request"))
		if err != nil || !bytes.Equal(got, answer) {
			t.Errorf("got %d of %d bytes: %v", len(got), len(answer), err)
		}
		// The other direction: the service ends first and still reads.
		heard := make(chan []byte, 2)
		talker := programs.Listen(t, func(c *net.TCPConn) {
			if err := c.CloseWrite(); err != nil {
				return
			}
			b, _ := io.ReadAll(c) // what came counts
			heard <- b
		})
		m = p.CreateMapping(t, p.wanted(programs.FreePort(t), talker.Port))
		c := programs.Dial(t, m.LocalPort)
		ended(t, c)
		if _, err := c.Write(answer); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
		if b := <-heard; !bytes.Equal(b, answer) {
			t.Errorf("the service heard %d of %d bytes after its own end", len(b), len(answer))
		}
	})
}

// TestPostgresBehindTheTunnel: pgbench with eight connections for ten seconds
// through the tunnel has no failed transaction.
func TestPostgresBehindTheTunnel(t *testing.T) {
	t.Parallel()
	database := services.StartPostgres(t, services.PostgresOptions{TCP: true})
	pgbench := database.Pgbench()
	if pgbench == "" {
		t.Fatal("pgbench is missing: install the package postgresql-contrib")
	}
	_, port, err := net.SplitHostPort(database.Addr())
	if err != nil {
		t.Fatal(err)
	}
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		var target int
		if _, err := fmt.Sscan(port, &target); err != nil {
			t.Fatal(err)
		}
		m := p.mapping(t, target)
		through := []string{"-h", "127.0.0.1", "-p", fmt.Sprint(m.LocalPort), "-U", "postgres"}
		run := func(program string, args ...string) string {
			t.Helper()
			cmd := exec.Command(program, append(append([]string{}, through...), args...)...)
			cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGCONNECT_TIMEOUT=10")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", program, err, out)
			}
			return string(out)
		}
		run(pgbench, "-i", "-q", "-s", "2", "postgres")
		out := run(pgbench, "-c", "8", "-j", "2", "-T", "10", "-n", "postgres")
		if failed := regexp.MustCompile(`number of failed transactions: (\d+)`).FindStringSubmatch(out); failed == nil || failed[1] != "0" {
			t.Errorf("failed transactions:\n%s", out)
		}
		if done := regexp.MustCompile(`transactions actually processed: (\d+)`).FindStringSubmatch(out); done == nil || done[1] == "0" {
			t.Errorf("no transactions:\n%s", out)
		} else {
			t.Logf("%s transactions through the tunnel, none failed", done[1])
		}
		if psql := filepath.Join(filepath.Dir(pgbench), "psql"); fileExists(psql) {
			if got := run(psql, "-tAc", "SELECT count(*) FROM pgbench_accounts", "postgres"); got != "200000\n" {
				t.Errorf("psql through the tunnel says %q", got)
			}
		}
	})
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }
