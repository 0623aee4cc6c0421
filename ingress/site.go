package ingress

import (
	"context"
	"errors"
	"net"
)

// Finder says what a public host leads to.
type Finder interface {
	// Find gives the site of a host, as [Host] writes it, and a path without escapes and
	// dot segments, for a visitor at an address. It fails with [ErrNoSite] when nothing is mapped there. An
	// error that is [Unreachable] becomes the page that says which hop failed.
	Find(ctx context.Context, host, path, visitor string) (Site, error)
}

// ErrNoSite: no mapping has this host and path.
var ErrNoSite = errors.New("ingress: nothing is mapped here")

// Site is one mapping at a public host, as it is at the moment.
type Site struct {
	// Mapping tells sites apart, and Version the shapes of one: connections to the
	// service that were kept are used for the same mapping and version only.
	Mapping int64
	Version int64
	// Dial opens a connection to the service for a visitor at an address. It fails
	// with [Unreachable] where it can say which hop did.
	Dial func(ctx context.Context, visitor string) (net.Conn, error)
	// Scheme is how the service is spoken to: http (also ""), https or h2c. The certificate
	// of an https service is not verified: most services made theirs themselves, and the
	// network between the agent and the service belongs to the owner of both.
	Scheme string
	// ServerName is what an https service is asked for by SNI; "" = nothing.
	ServerName string
	// HostHeader replaces the Host that the service sees; "" keeps the visitor's.
	HostHeader string
	// Access says who may come in.
	Access Access
	// StripPrefix is taken off the beginning of the path; "" = nothing is.
	StripPrefix string
	// Request and Response are changed on their ways to the service and to the visitor.
	Request, Response HeaderChanges

	cookie string // to be set with the answer, "" = none
	user   string // who has logged in, for the service; "" = nobody
}

// Unreachable says why no connection to the service could be had.
type Unreachable struct {
	Status   int    // of the page; 0 = 502
	Code     string // for machines: target_offline, dial_refused, dial_timeout, ...
	Sentence string // for people; gives nothing away that a stranger must not know
	Err      error  // for the log
}

// Error gives all of it, for the log.
func (u *Unreachable) Error() string {
	if u.Err == nil {
		return u.Code
	}
	return u.Code + ": " + u.Err.Error()
}

// Unwrap gives the cause.
func (u *Unreachable) Unwrap() error { return u.Err }
