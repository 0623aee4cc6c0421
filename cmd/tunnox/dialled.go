package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
)

// dialled dials, and remembers why that failed.
type dialled struct {
	dial    func(context.Context, string) (transport.Session, error)
	tries   func() []reach.Try // what came of the latest attempt over each transport
	servers int                // how many there are; 0: nobody asks whether there is hope

	mu       sync.Mutex
	last     error            // guarded by mu
	answered bool             // whether there was a session; guarded by mu
	strange  map[string]error // by server: its certificate is not known; guarded by mu
	hopeless chan struct{}    // closed when each server is strange
}

func (d *dialled) do(ctx context.Context, server string) (transport.Session, error) {
	session, err := d.dial(ctx, server)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answered = d.answered || err == nil
	if err != nil && ctx.Err() == nil || d.last == nil {
		d.last = err
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, elsewhere := errors.AsType[x509.HostnameError](err) // this is checked before the authority is
	if (unknown || elsewhere) && d.servers > 0 && d.strange[server] == nil {
		if d.strange == nil {
			d.strange = map[string]error{}
		}
		if d.strange[server] = err; len(d.strange) == d.servers {
			close(d.hopeless)
		}
	}
	return session, err
}

func (d *dialled) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answered && d.last == nil {
		return errors.New("the server answered, but did not log this machine in within the time of --timeout")
	}
	failed := &reach.RaceError{}
	if race, many := errors.AsType[*reach.RaceError](d.last); many {
		failed = race
	} else if d.last != nil && !errors.Is(d.last, context.Canceled) {
		return errors.New(plainly(d.last))
	} else if d.tries != nil { // the slowest of them still waits
		failed.Tries = d.tries()
	}
	var reasons []string
	over := map[string][]string{}
	for _, try := range failed.Tries {
		if try.Err == nil {
			continue
		}
		reason := plainly(try.Err)
		if over[reason] == nil {
			reasons = append(reasons, reason)
		}
		over[reason] = append(over[reason], try.Scheme)
	}
	switch len(reasons) {
	case 0:
		return errors.New("no answer within the time of --timeout")
	case 1:
		return errors.New(reasons[0])
	}
	for i, reason := range reasons {
		reasons[i] = fmt.Sprintf("over %s %s", strings.Join(over[reason], " and "), reason)
	}
	return errors.New(strings.Join(reasons, ", "))
}

// plainly says why a server was not reached, in words for people where there are some.
func plainly(err error) string {
	name, unresolved := errors.AsType[*net.DNSError](err)
	late, mayBeLate := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "this machine has no way there"
	case unresolved && name.IsNotFound:
		return "its name does not resolve"
	case unresolved:
		return "the name server does not answer"
	case mayBeLate && late.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "there is no answer"
	}
	return oneLine(err.Error())
}

// unverified gives the error of servers whose certificates nobody vouches for; nil
// while there may be another server. To wait does not help then.
func (d *dialled) unverified(servers []string) error {
	select {
	case <-d.hopeless:
	default:
		return nil
	}
	server := oneLine(servers[0])
	return codedError{exitUsage, fmt.Errorf("%s has a certificate that this machine cannot verify, so the pin of the server's key is missing: --server %s%ssha256:...\n  the server prints it at its start, and tunnox expose prints it behind the code", oneLine(strings.Join(servers, ", ")), server, pinMark)}
}
