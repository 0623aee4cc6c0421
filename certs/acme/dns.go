package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	// commandTime bounds one call of the command for DNS.
	commandTime = 2 * time.Minute
	// commandSays bounds what is told of its output, in bytes.
	commandSays = 2 << 10
)

// dnsCommand is the solver of DNS-01. It has a program of the operator's make TXT records:
//
//	PROGRAM present _acme-challenge.t.example.org VALUE
//	PROGRAM cleanup _acme-challenge.t.example.org VALUE
//
// The first returns when the name servers of the domain answer with the record, and the
// second takes away this value alone. Several values may be there at once.
type dnsCommand struct {
	program string
	mu      sync.Mutex // one call at a time: few programs for it expect another
}

// Present implements acmez.Solver.
func (c *dnsCommand) Present(ctx context.Context, challenge acme.Challenge) error {
	return c.run(ctx, "present", challenge)
}

// CleanUp implements acmez.Solver. It works after the order's time, too.
func (c *dnsCommand) CleanUp(ctx context.Context, challenge acme.Challenge) error {
	return c.run(context.WithoutCancel(ctx), "cleanup", challenge)
}

func (c *dnsCommand) run(ctx context.Context, what string, challenge acme.Challenge) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, what, challenge.DNS01TXTRecordName(), challenge.DNS01KeyAuthorization())
	// The settings of this server have passwords; those of the program are its own.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "TUNNOX") })
	cmd.WaitDelay = 5 * time.Second // for what the program has started and left behind
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end within %v", commandTime)
	}
	if err != nil {
		text := said.Bytes()
		return fmt.Errorf("the command for DNS, %s %s %s: %w: %q", c.program, what, challenge.DNS01TXTRecordName(), err, text[:min(len(text), commandSays)])
	}
	return nil
}
