package domain

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Webhook is an address that receives the events of an account as they happen.
//
// Rules: a webhook belongs to a user, or, with user 0, to the operator. It receives the
// events that its owner may see in the audit now: the events of all accounts only while
// the owner is an admin, and none while the owner is disabled. A user holds at most
// [MaxWebhooks]. The log keeps no secret: secrets are derived from a key of the servers,
// the webhook's id and the generation. A deleted webhook stays deleted.
type Webhook struct {
	ID          int64     `json:"id"`
	UserID      int64     `json:"user_id,omitempty"` // 0 = the operator
	URL         string    `json:"url"`
	Events      []string  `json:"events,omitempty"` // names, or beginnings of names followed by *; none = all
	All         bool      `json:"all,omitempty"`    // the events of all accounts, not only of the owner's
	Description string    `json:"description,omitempty"`
	Generation  int64     `json:"generation"` // of the secret, from 1
	RotatedAt   time.Time `json:"rotated_at,omitzero"`
	Disabled    bool      `json:"disabled,omitempty"`
	Reason      string    `json:"reason,omitempty"` // why it is disabled, when the system did it
	Deleted     bool      `json:"deleted,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

const (
	// MaxWebhooks is how many webhooks a user may hold.
	MaxWebhooks = 10
	// MaxWebhookEvents is how many events a webhook may name.
	MaxWebhookEvents = 50
	// SecretGrace is how long after a rotation deliveries are still signed with the
	// earlier secret too.
	SecretGrace = 24 * time.Hour

	maxURLLength    = 2000 // bytes
	maxReasonLength = 200  // characters
)

// Events of a webhook.
type (
	// WebhookCreated begins a webhook.
	WebhookCreated struct {
		WebhookID   int64    `json:"webhook_id"`
		UserID      int64    `json:"user_id,omitempty"`
		URL         string   `json:"url"`
		Events      []string `json:"events,omitempty"`
		All         bool     `json:"all,omitempty"`
		Description string   `json:"description,omitempty"`
	}
	// WebhookChanged replaces all fields that can change.
	WebhookChanged struct {
		URL         string   `json:"url"`
		Events      []string `json:"events,omitempty"`
		All         bool     `json:"all,omitempty"`
		Description string   `json:"description,omitempty"`
	}
	// WebhookSecretRotated replaces the secret.
	WebhookSecretRotated struct {
		Generation int64 `json:"generation"`
	}
	// WebhookDisabled stops a webhook until WebhookEnabled.
	WebhookDisabled struct {
		Reason string `json:"reason,omitempty"` // only when the system disabled it
	}
	// WebhookEnabled ends WebhookDisabled.
	WebhookEnabled struct{}
	// WebhookDeleted ends a webhook.
	WebhookDeleted struct{}
)

// EventName implements [Event].
func (WebhookCreated) EventName() string { return "webhook_created" }

// EventName implements [Event].
func (WebhookChanged) EventName() string { return "webhook_changed" }

// EventName implements [Event].
func (WebhookSecretRotated) EventName() string { return "webhook_secret_rotated" }

// EventName implements [Event].
func (WebhookDisabled) EventName() string { return "webhook_disabled" }

// EventName implements [Event].
func (WebhookEnabled) EventName() string { return "webhook_enabled" }

// EventName implements [Event].
func (WebhookDeleted) EventName() string { return "webhook_deleted" }

// Exists implements [Aggregate].
func (w *Webhook) Exists() bool { return w.ID != 0 }

// Live reports whether the webhook exists and was not deleted.
func (w *Webhook) Live() bool { return w.Exists() && !w.Deleted }

// Wants reports whether the webhook asks for events of a name.
func (w *Webhook) Wants(event string) bool {
	return len(w.Events) == 0 || slices.ContainsFunc(w.Events, func(pattern string) bool { return matchesEvent(pattern, event) })
}

func matchesEvent(pattern, event string) bool {
	if beginning, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(event, beginning)
	}
	return pattern == event
}

// Generations gives the valid generations of the secret at a moment, the newest first.
// After a rotation the earlier secret stays valid for [SecretGrace], so that a receiver
// has time to change. A second rotation ends the validity of the first secret.
func (w *Webhook) Generations(at time.Time) []int64 {
	if w.Generation > 1 && at.Before(w.RotatedAt.Add(SecretGrace)) {
		return []int64{w.Generation, w.Generation - 1}
	}
	return []int64{w.Generation}
}

// Clone implements [Aggregate].
func (w *Webhook) Clone() Aggregate {
	c := *w
	c.Events = slices.Clone(w.Events)
	return &c
}

// Apply implements [Aggregate].
func (w *Webhook) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case WebhookCreated:
		*w = Webhook{ID: e.WebhookID, UserID: e.UserID, URL: e.URL, Events: e.Events, All: e.All, Description: e.Description,
			Generation: 1, CreatedAt: at}
	case WebhookChanged:
		w.URL, w.Events, w.All, w.Description = e.URL, e.Events, e.All, e.Description
	case WebhookSecretRotated:
		w.Generation, w.RotatedAt = e.Generation, at
	case WebhookDisabled:
		w.Disabled, w.Reason = true, e.Reason
	case WebhookEnabled:
		w.Disabled, w.Reason = false, ""
	case WebhookDeleted:
		w.Deleted = true
	default:
		return
	}
	w.UpdatedAt = at
}

// CreateWebhook begins a webhook.
type CreateWebhook struct {
	ID          int64
	UserID      int64 // 0 = the operator's
	URL         string
	Events      []string
	All         bool
	Description string
}

// CommandName implements [Command].
func (CreateWebhook) CommandName() string { return "create_webhook" }

// Subject implements [Command].
func (c CreateWebhook) Subject() StreamID { return WebhookStream(c.ID) }

// Account implements [Command].
func (c CreateWebhook) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateWebhook) Reads() []StreamID {
	if c.UserID == 0 {
		return []StreamID{WebhookStream(c.ID)}
	}
	return []StreamID{WebhookStream(c.ID), UserStream(c.UserID), QuotaStream(c.UserID)}
}

// Decide implements [Command].
func (c CreateWebhook) Decide(s States) (Decision, error) {
	var f faults
	f.webhook(c.URL, c.Events, c.Description)
	if c.UserID == 0 && !c.All {
		f.add("scope", "must be all: the operator has no account of its own")
	}
	if err := f.err("The webhook cannot be created as asked."); err != nil {
		return Decision{}, err
	}
	if s.webhook(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This webhook id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(WebhookStream(c.ID), WebhookCreated{WebhookID: c.ID, UserID: c.UserID, URL: c.URL, Events: c.Events, All: c.All, Description: c.Description})
	if c.UserID == 0 {
		return d, nil
	}
	u, err := s.enabledUser(c.UserID)
	if err != nil {
		return Decision{}, err
	}
	if c.All && u.Role != RoleAdmin {
		return Decision{}, seesNotAll()
	}
	return d, s.quota(c.UserID).take(&d, QuotaTaken{Resources: []Resource{ResourceWebhook}, ID: c.ID})
}

func seesNotAll() error {
	return refuseAt(CodeScopeDenied, "A webhook may not receive more than its owner may see, and the owner is not an admin.", "scope")
}

// ChangeWebhook changes the address and the events of a webhook; nil keeps the present
// value.
type ChangeWebhook struct {
	ID          int64
	URL         *string
	Events      *[]string
	All         *bool
	Description *string
	// Admin reports whether the caller may see everything. Another caller must not
	// redirect a webhook that receives everything, also with a key of its owner.
	Admin bool
}

// CommandName implements [Command].
func (ChangeWebhook) CommandName() string { return "change_webhook" }

// Subject implements [Command].
func (c ChangeWebhook) Subject() StreamID { return WebhookStream(c.ID) }

// Account implements [Command].
func (ChangeWebhook) Account() int64 { return 0 }

// Reads implements [Command].
func (c ChangeWebhook) Reads() []StreamID { return []StreamID{WebhookStream(c.ID)} }

// Decide implements [Command].
func (c ChangeWebhook) Decide(s States) (Decision, error) {
	w, err := s.liveWebhook(c.ID)
	if err != nil {
		return Decision{}, err
	}
	e := WebhookChanged{URL: w.URL, Events: w.Events, All: w.All, Description: w.Description}
	if c.URL != nil {
		e.URL = *c.URL
	}
	if c.Events != nil {
		e.Events = *c.Events
	}
	if c.All != nil {
		e.All = *c.All
	}
	if c.Description != nil {
		e.Description = *c.Description
	}
	var f faults
	f.webhook(e.URL, e.Events, e.Description)
	if w.UserID == 0 && !e.All {
		f.add("scope", "must be all: the operator has no account of its own")
	}
	if err := f.err("The webhook cannot be changed as asked."); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: w.UserID}
	if e.URL == w.URL && slices.Equal(e.Events, w.Events) && e.All == w.All && e.Description == w.Description {
		return d, nil
	}
	if e.All && !c.Admin {
		return Decision{}, refuseAt(CodeScopeDenied, "Only an admin may change a webhook that receives the events of all accounts.", "scope")
	}
	if e.All && !w.All && w.UserID != 0 {
		u, err := s.liveUser(w.UserID)
		if err != nil {
			return Decision{}, err
		}
		if u.Role != RoleAdmin {
			return Decision{}, seesNotAll()
		}
	}
	d.add(WebhookStream(c.ID), e)
	return d, nil
}

// SetWebhookEnabled enables or disables a webhook. It succeeds, and changes nothing,
// when the webhook is in that state.
type SetWebhookEnabled struct {
	ID      int64
	Enabled bool
	Reason  string // why the system disables it
}

// CommandName implements [Command].
func (c SetWebhookEnabled) CommandName() string { return enableName("webhook", c.Enabled) }

// Subject implements [Command].
func (c SetWebhookEnabled) Subject() StreamID { return WebhookStream(c.ID) }

// Account implements [Command].
func (SetWebhookEnabled) Account() int64 { return 0 }

// Reads implements [Command].
func (c SetWebhookEnabled) Reads() []StreamID { return []StreamID{WebhookStream(c.ID)} }

// Decide implements [Command].
func (c SetWebhookEnabled) Decide(s States) (Decision, error) {
	w, err := s.liveWebhook(c.ID)
	if err != nil {
		return Decision{}, err
	}
	var f faults
	f.text("reason", c.Reason, 0, maxReasonLength)
	if err := f.err("The webhook cannot be switched as asked."); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: w.UserID}
	switch {
	case c.Enabled && w.Disabled:
		d.add(WebhookStream(c.ID), WebhookEnabled{})
	case !c.Enabled && !w.Disabled:
		d.add(WebhookStream(c.ID), WebhookDisabled{Reason: c.Reason})
	}
	return d, nil
}

// RotateWebhookSecret replaces the secret of a webhook.
type RotateWebhookSecret struct{ ID int64 }

// CommandName implements [Command].
func (RotateWebhookSecret) CommandName() string { return "rotate_webhook_secret" }

// Subject implements [Command].
func (c RotateWebhookSecret) Subject() StreamID { return WebhookStream(c.ID) }

// Account implements [Command].
func (RotateWebhookSecret) Account() int64 { return 0 }

// Reads implements [Command].
func (c RotateWebhookSecret) Reads() []StreamID { return []StreamID{WebhookStream(c.ID)} }

// Decide implements [Command].
func (c RotateWebhookSecret) Decide(s States) (Decision, error) {
	w, err := s.liveWebhook(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: w.UserID}
	d.add(WebhookStream(c.ID), WebhookSecretRotated{Generation: w.Generation + 1})
	return d, nil
}

// DeleteWebhook ends a webhook.
type DeleteWebhook struct{ ID int64 }

// CommandName implements [Command].
func (DeleteWebhook) CommandName() string { return "delete_webhook" }

// Subject implements [Command].
func (c DeleteWebhook) Subject() StreamID { return WebhookStream(c.ID) }

// Account implements [Command].
func (DeleteWebhook) Account() int64 { return 0 }

// Reads implements [Command].
func (c DeleteWebhook) Reads() []StreamID { return []StreamID{WebhookStream(c.ID)} }

// Decide implements [Command].
func (c DeleteWebhook) Decide(s States) (Decision, error) {
	w, err := s.liveWebhook(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: w.UserID}
	if w.UserID != 0 {
		if err := s.need(QuotaStream(w.UserID)); err != nil {
			return Decision{}, err
		}
	}
	endWebhook(&d, c.ID, w.UserID)
	return d, nil
}

func endWebhook(d *Decision, id, user int64) {
	d.add(WebhookStream(id), WebhookDeleted{})
	d.Closes = append(d.Closes, WebhookStream(id))
	if user != 0 {
		d.add(QuotaStream(user), QuotaReturned{Resources: []Resource{ResourceWebhook}, ID: id})
	}
}

// liveWebhook gives the webhook, or the refusal when there is none.
func (s States) liveWebhook(id int64) (*Webhook, error) {
	w := s.webhook(id)
	if !w.Live() {
		return nil, refuse(CodeWebhookNotFound, "There is no such webhook.")
	}
	return w, nil
}

func (f *faults) webhook(address string, events []string, description string) {
	f.webhookURL("url", address)
	f.text("description", description, 0, maxDescriptionLength)
	if len(events) > MaxWebhookEvents {
		f.add("events", "must be 50 at most; name beginnings, such as mapping_*")
	}
	for i, pattern := range events {
		if slices.Contains(events[:i], pattern) {
			f.add("events", "must be different ones")
			return
		}
		if !slices.ContainsFunc(EventNames(), func(name string) bool { return matchesEvent(pattern, name) }) {
			f.add("events", "must be names of events or beginnings of them, such as client_created or mapping_*; GET /audit shows them")
			return
		}
	}
}

// webhookURL checks the form. Whether the address may be reached is decided when
// it is dialled, since names may come to mean another one at any time.
func (f *faults) webhookURL(field, s string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxURLLength || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		f.add(field, "must be a URL of at most 2000 characters, such as https://example.org/hook")
	case u.User != nil:
		f.add(field, "must not hold a user name or password; check the signature instead")
	case u.Fragment != "":
		f.add(field, "must not have a fragment (#...), because it is not sent")
	}
}
