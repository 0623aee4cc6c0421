// Package ingress serves HTTP at public host names: it reads a visitor's request,
// finds the mapping of its host and path, and carries the request to the service
// over a connection that the mapping's site dials.
//
// Its duty is that visitor and service do not notice it. Requests and answers arrive as
// they were sent, piece by piece and at once. If one end cuts an exchange short, the
// other end sees it cut short too. Headers in which a visitor says where a request comes
// from are replaced by the truth.
//
// Its limits: it knows no mapping, no client and no session. [Finder] finds the site of a
// host, and [Site.Dial] connects to it. net/http implements HTTP.
package ingress
