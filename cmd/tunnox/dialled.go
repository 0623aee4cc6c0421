package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tunnox-net/tunnox/transport"
)

// dialled dials, and remembers why that failed.
type dialled struct {
	dial    func(context.Context, string) (transport.Session, error)
	servers int // how many there are; 0: nobody asks whether there is hope

	mu       sync.Mutex
	last     error            // guarded by mu
	strange  map[string]error // by server: its certificate is not known; guarded by mu
	hopeless chan struct{}    // closed when each server is strange
}

func (d *dialled) do(ctx context.Context, server string) (transport.Session, error) {
	session, err := d.dial(ctx, server)
	d.mu.Lock()
	defer d.mu.Unlock()
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
	if d.last == nil {
		return errors.New("the server answered, but did not log this machine in within the time of --timeout")
	}
	return d.last
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
