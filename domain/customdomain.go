package domain

import (
	"fmt"
	"strings"
	"time"
)

// Domain is a name of a user's own, such as shop.example.com, for public hosts beside
// the names under the server's base domain.
//
// Rules: anybody may ask for a name, and asking gives nobody anything. Who can put a TXT
// record with the token beside the name has proved it. Then the name is one user's: of
// two who prove it one is refused, until the other one deletes it. That is kept by the
// host of the name ([Host]), where mappings look too. A name with mappings cannot be
// deleted. Mappings end before the domains of their user.
type Domain struct {
	ID         int64     `json:"id"`
	UserID     int64     `json:"user_id"`
	Host       string    `json:"host"`
	Token      string    `json:"token"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	Deleted    bool      `json:"deleted,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

const (
	// MaxDomains is how many domains a user may have.
	MaxDomains = 100
	// DomainTokenLength is the shortest token: 26 letters of base32 are 130 bits.
	DomainTokenLength = 26

	proofLabel  = "_tunnox."
	proofPrefix = "tunnox-domain="
)

// ProofName is the name of the TXT record that proves a host.
func (d *Domain) ProofName() string { return proofLabel + d.Host }

// ProofValue is the text of that record.
func (d *Domain) ProofValue() string { return proofPrefix + d.Token }

// Events of a domain.
type (
	// OwnDomainCreated begins a domain that is not proved.
	OwnDomainCreated struct {
		DomainID int64  `json:"domain_id"`
		UserID   int64  `json:"user_id"`
		Host     string `json:"host"`
		Token    string `json:"token"`
	}
	// OwnDomainVerified says that its user has proved it.
	OwnDomainVerified struct{}
	// OwnDomainDeleted ends a domain.
	OwnDomainDeleted struct{}

	// HostProved gives a host of another domain to the user who has proved it.
	HostProved struct {
		Host   string `json:"host"`
		UserID int64  `json:"user_id"`
	}
	// HostReleased takes it back.
	HostReleased struct {
		Host string `json:"host"`
	}
)

// EventName implements [Event].
func (OwnDomainCreated) EventName() string { return "domain_created" }

// EventName implements [Event].
func (OwnDomainVerified) EventName() string { return "domain_verified" }

// EventName implements [Event].
func (OwnDomainDeleted) EventName() string { return "domain_deleted" }

// EventName implements [Event].
func (HostProved) EventName() string { return "host_proved" }

// EventName implements [Event].
func (HostReleased) EventName() string { return "host_released" }

// Refusals of domains.
const (
	CodeDomainNotFound Code = "domain_not_found"
	CodeDomainTaken    Code = "domain_taken"  // somebody has proved it
	CodeDomainInUse    Code = "domain_in_use" // by mappings
	CodeQuotaDomains   Code = "quota_domains"
)

// Exists implements [Aggregate].
func (d *Domain) Exists() bool { return d.ID != 0 }

// Live reports whether the domain exists and was not deleted.
func (d *Domain) Live() bool { return d.Exists() && !d.Deleted }

// Verified reports whether its user has proved it.
func (d *Domain) Verified() bool { return !d.VerifiedAt.IsZero() }

// Clone implements [Aggregate].
func (d *Domain) Clone() Aggregate { c := *d; return &c }

// Apply implements [Aggregate].
func (d *Domain) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case OwnDomainCreated:
		*d = Domain{ID: e.DomainID, UserID: e.UserID, Host: e.Host, Token: e.Token, CreatedAt: at}
	case OwnDomainVerified:
		d.VerifiedAt = at
	case OwnDomainDeleted:
		d.Deleted = true
	default:
		return
	}
	d.UpdatedAt = at
}

// CreateDomain begins a domain.
type CreateDomain struct {
	ID     int64
	UserID int64
	Host   string
	Token  string
}

// CommandName implements [Command].
func (CreateDomain) CommandName() string { return "create_domain" }

// Subject implements [Command].
func (c CreateDomain) Subject() StreamID { return OwnDomainStream(c.ID) }

// Account implements [Command].
func (c CreateDomain) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateDomain) Reads() []StreamID {
	return []StreamID{OwnDomainStream(c.ID), UserStream(c.UserID), QuotaStream(c.UserID)}
}

// Decide implements [Command].
func (c CreateDomain) Decide(s States) (Decision, error) {
	c.Host = strings.ToLower(strings.TrimSuffix(c.Host, "."))
	var f faults
	f.domainName("host", c.Host)
	if len(c.Token) < DomainTokenLength {
		f.add("token", fmt.Sprintf("must have %d characters or more, has %d", DomainTokenLength, len(c.Token)))
	}
	if err := f.err("The domain cannot be added as asked."); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if s.domain(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This domain's id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(OwnDomainStream(c.ID), OwnDomainCreated{DomainID: c.ID, UserID: c.UserID, Host: c.Host, Token: c.Token})
	return d, s.quota(c.UserID).take(&d, QuotaTaken{Resources: []Resource{ResourceDomain}, ID: c.ID})
}

// domainName checks the name of a host with its domain, whose proof has a name, too.
func (f *faults) domainName(field, host string) {
	switch {
	case !strings.Contains(host, "."):
		f.add(field, "must be a full name, for example shop.example.com")
	case len(host) > maxHostLength-len(proofLabel):
		f.add(field, fmt.Sprintf("must have up to %d characters, has %d", maxHostLength-len(proofLabel), len(host)))
	default:
		var labels faults
		if labels.publicHost(field, host); labels.err("") != nil {
			f.add(field, "must have labels of up to 63 letters, digits and dashes, for example shop.example.com")
		}
	}
}

// VerifyDomain notes that the user has proved a domain: the caller has seen the record.
type VerifyDomain struct{ ID int64 }

// CommandName implements [Command].
func (VerifyDomain) CommandName() string { return "verify_domain" }

// Subject implements [Command].
func (c VerifyDomain) Subject() StreamID { return OwnDomainStream(c.ID) }

// Account implements [Command].
func (VerifyDomain) Account() int64 { return 0 }

// Reads implements [Command].
func (c VerifyDomain) Reads() []StreamID { return []StreamID{OwnDomainStream(c.ID)} }

// Decide implements [Command].
func (c VerifyDomain) Decide(s States) (Decision, error) {
	domain := s.domain(c.ID)
	if !domain.Live() {
		return Decision{}, refuse(CodeDomainNotFound, "There is no such domain.")
	}
	d := Decision{Account: domain.UserID}
	if domain.Verified() {
		return d, nil
	}
	if err := s.need(HostStream(domain.Host), UserStream(domain.UserID)); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(domain.UserID); err != nil {
		return Decision{}, err
	}
	if s.host(domain.Host).Names[domain.Host].Owner != 0 {
		return Decision{}, refuse(CodeDomainTaken, fmt.Sprintf("The domain %s was verified before, and must be removed there first.", domain.Host))
	}
	d.add(OwnDomainStream(c.ID), OwnDomainVerified{})
	d.add(HostStream(domain.Host), HostProved{Host: domain.Host, UserID: domain.UserID})
	return d, nil
}

// DeleteDomain ends a domain that no mapping uses.
type DeleteDomain struct{ ID int64 }

// CommandName implements [Command].
func (DeleteDomain) CommandName() string { return "delete_domain" }

// Subject implements [Command].
func (c DeleteDomain) Subject() StreamID { return OwnDomainStream(c.ID) }

// Account implements [Command].
func (DeleteDomain) Account() int64 { return 0 }

// Reads implements [Command].
func (c DeleteDomain) Reads() []StreamID { return []StreamID{OwnDomainStream(c.ID)} }

// Decide implements [Command].
func (c DeleteDomain) Decide(s States) (Decision, error) {
	domain := s.domain(c.ID)
	if !domain.Live() {
		return Decision{}, refuse(CodeDomainNotFound, "There is no such domain.")
	}
	if err := s.need(HostStream(domain.Host), QuotaStream(domain.UserID)); err != nil {
		return Decision{}, err
	}
	if users := s.host(domain.Host).Mappings(domain.Host); domain.Verified() && len(users) > 0 {
		return Decision{}, refuse(CodeDomainInUse, fmt.Sprintf("The mapping %d uses the domain %s. Delete it, or give it another public host, first.", users[0], domain.Host))
	}
	d := Decision{Account: domain.UserID}
	return d, endDomains(s, &d, domain.UserID, []int64{c.ID})
}

// endDomains ends domains of a user, whose mappings end with them or before.
func endDomains(s States, d *Decision, user int64, ids []int64) error {
	var hosts []StreamID
	for _, id := range ids {
		if domain := s.domain(id); domain.Verified() {
			hosts = append(hosts, HostStream(domain.Host))
		}
	}
	if err := s.need(hosts...); err != nil {
		return err
	}
	for _, id := range ids {
		domain := s.domain(id)
		d.add(OwnDomainStream(id), OwnDomainDeleted{})
		d.Closes = append(d.Closes, OwnDomainStream(id))
		if domain.Verified() {
			d.add(HostStream(domain.Host), HostReleased{Host: domain.Host})
		}
		d.add(QuotaStream(user), QuotaReturned{Resources: []Resource{ResourceDomain}, ID: id})
	}
	return nil
}
