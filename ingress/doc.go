// Package ingress serves HTTP at public host names: it reads a visitor's request,
// finds the mapping of its host and path, and carries the request to the service
// over a connection that the mapping's site dials.
//
// Its duty is that the visitor and the service notice nothing of it: requests and
// answers arrive as they were sent, a piece at a time and as soon as they come, and
// an exchange that was cut short is cut short at the other end too. What a visitor
// claims about where a request comes from is replaced by what is true.
//
// Its limits: it knows no mapping, no client and no session. [Finder] says what a
// host leads to, and [Site.Dial] gets there. HTTP itself is net/http's.
package ingress
