package agent

import (
	"net/netip"
	"sync"
)

// consents are the services that may be dialled because a program of this machine holds a
// tunnel to them. Whoever starts such a program allows its service by that. The zero value
// is ready.
type consents struct {
	mu    sync.Mutex
	given map[string]*consent // by host:port, unix:PATH or file:PATH; guarded by mu
}

type consent struct {
	policy Policy
	times  int
}

func (c *consents) add(service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if given := c.given[service]; given != nil {
		given.times++
		return
	}
	policy, err := ParsePolicy([]string{service})
	if err != nil {
		return // no service that could be dialled; the dial says so
	}
	if c.given == nil {
		c.given = map[string]*consent{}
	}
	c.given[service] = &consent{policy, 1}
}

func (c *consents) remove(service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if given := c.given[service]; given != nil {
		if given.times--; given.times == 0 {
			delete(c.given, service)
		}
	}
}

func (c *consents) allowsPlace(at place) (top string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, given := range c.given {
		if top, ok = given.policy.allowsPlace(at); ok {
			return top, true
		}
	}
	return "", false
}

func (c *consents) allows(host string, addr netip.Addr, port uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, given := range c.given {
		if given.policy.Allows(host, addr, port) {
			return true
		}
	}
	return false
}
