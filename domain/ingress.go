package domain

// Ingress names a place where connections come in at a forwarder itself: a range of
// public ports, both ends included, or one public host, by the name that its
// mappings have. A forwarder has a view of each
// ingress beside its views of clients.
type Ingress struct {
	FirstPort int    `json:"first_port,omitempty"`
	LastPort  int    `json:"last_port,omitempty"`
	Host      string `json:"host,omitempty"`
}

// Has reports whether connections of a mapping come in there.
func (i Ingress) Has(m *Mapping) bool {
	if i.Host != "" {
		return m.PublicHost == i.Host
	}
	return m.PublicPort.First != 0 && m.PublicPort.First <= i.LastPort && m.PublicPort.Last >= i.FirstPort
}

// Ingress is the smallest one that has the mapping; the zero value for one whose
// source is an agent.
func (m *Mapping) Ingress() Ingress {
	return Ingress{FirstPort: m.PublicPort.First, LastPort: m.PublicPort.Last, Host: m.PublicHost}
}

// IngressView is all a forwarder must know to serve what comes in at an ingress: its
// mappings, and the users and limits of their accounts. Versions and position are as
// with [ClientView].
type IngressView struct {
	Position Position                   `json:"position"`
	Ingress  Ingress                    `json:"ingress"`
	Mappings []Versioned[Mapping]       `json:"mappings,omitempty"`
	Users    []Versioned[User]          `json:"users,omitempty"`
	Limits   []Versioned[AccountLimits] `json:"limits,omitempty"`
}

// Meets reports whether the two have a port or a host in common.
func (i Ingress) Meets(o Ingress) bool {
	return i == o || o.FirstPort != 0 && i.FirstPort <= o.LastPort && o.FirstPort <= i.LastPort
}
