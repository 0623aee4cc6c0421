package main

import (
	"context"
	"net"
)

// lookupTXT asks for the TXT records of a name: the name server of --resolver, or those
// of the system.
func (c *config) lookupTXT(ctx context.Context, name string) ([]string, error) {
	resolver := net.DefaultResolver
	if c.Resolver != "" {
		resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, c.Resolver)
		}}
	}
	return resolver.LookupTXT(ctx, name)
}
