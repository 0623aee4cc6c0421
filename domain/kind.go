package domain

import (
	"fmt"
	"slices"
)

// Kind describes one kind of aggregate: the names of its streams, its state, the fields
// that are sealed, the fields that no answer shows, its rows, and what ends with its
// owner. Every package that needs such a list reads the table of kinds.
// docs/howto/add-a-resource.md says how to add a kind.
type Kind struct {
	// Category is the beginning of the stream's id, and of the names of its events.
	Category string
	// Digits is how many digits the number in the id has at least.
	Digits int
	// New gives the state before the first record.
	New func() Aggregate

	// NoRow says why the read models have no rows of this kind. "" = they have.
	NoRow string

	// Personal are the fields that tell something about a person. They are texts, or
	// objects and lists that contain some; see [PersonalFields].
	Personal []EventFields
	// Routed are those of Personal without which a forwarder leads no connection. The
	// configuration feed carries them readable; see [RoutedFields].
	Routed []string
	// Row are the fields of a row that only control planes read. Forwarders get such a
	// row without them. nil = forwarders read all of it, unless ForControl is set.
	Row []string
	// ForControl says that forwarders have no use for rows of this kind, so that all of
	// a row is for control planes.
	ForControl bool
	// Secret are the fields that no answer shows, since they are what a proof is
	// checked with; see [SecretFields].
	Secret []EventFields
	// Open are the other fields that hold text or bytes. Everybody who may read the
	// record may read them. A test fails when such a field is in none of the three lists.
	Open []string

	// held says how an account holds it, nil for what no account holds.
	held *held
}

// EventFields are some of the fields of one event, as its JSON spells them.
type EventFields struct {
	Event  string
	Fields []string
}

func of(e Event, fields ...string) EventFields { return EventFields{e.EventName(), fields} }

// held says which aggregates of a kind an account holds, and how they end when the
// account, or a client of the account, is deleted.
type held struct {
	ids func(*Quota) []int64
	// ofClient gives those of ids that end with a client, nil when none do.
	ofClient func(q *Quota, clientID int64) []int64
	// end ends the given ones, whose streams were read, each with all that it counted.
	end func(s States, d *Decision, account int64, ids []int64) error
}

// each is the end of things that know nothing of each other.
func each(end func(d *Decision, id, account int64)) func(States, *Decision, int64, []int64) error {
	return func(_ States, d *Decision, account int64, ids []int64) error {
		for _, id := range ids {
			end(d, id, account)
		}
		return nil
	}
}

// mappingPersonal are the fields of a mapping that tell something about a person.
var mappingPersonal = []string{"name", "local_host", "public_host", "public_path", "target_host", "target", "targets", "socks", "access", "http", "health_check"}

// kinds is the table. What an account holds ends in the order of the table: mappings
// before the clients that they are for.
var kinds []Kind

func init() {
	// An init and not a literal, because commands name streams and streams need the table.
	kinds = []Kind{
		{
			Category: CategoryUser, New: func() Aggregate { return &User{} },
			Personal: []EventFields{of(UserCreated{}, "username", "email"), of(UserChanged{}, "username", "email"), of(UserPasswordSet{}, "hash")},
			Secret:   []EventFields{of(UserPasswordSet{}, "hash")},
			Row:      []string{"username", "email"},
			Open:     []string{"role", "plan"},
		},
		{
			Category: CategoryQuota, New: func() Aggregate { return &Quota{} },
			Open: []string{"resources"},
		},
		{
			Category: CategoryMapping, New: func() Aggregate { return &Mapping{} },
			Personal: []EventFields{of(MappingCreated{}, mappingPersonal...), of(MappingChanged{}, mappingPersonal...)},
			Routed:   mappingPersonal, // agents are told the name too
			Secret:   []EventFields{of(MappingCreated{}, "socks", "access", "http"), of(MappingChanged{}, "socks", "access", "http")},
			Open:     []string{"protocol", "target_scheme", "held_by", "proxy_protocol", "encryption"},
			held:     &held{ids: (*Quota).mappingIDs, ofClient: (*Quota).mappingsOf, end: func(s States, d *Decision, _ int64, ids []int64) error { return deleteMappings(s, d, ids) }},
		},
		{
			Category: CategoryKey, New: func() Aggregate { return &Key{} },
			ForControl: true,
			Personal:   []EventFields{of(KeyCreated{}, "name")},
			Secret:     []EventFields{of(KeyCreated{}, "hash")},
			Open:       []string{"prefix", "scopes"},
			held:       &held{ids: (*Quota).keyIDs, end: each(endKey)},
		},
		{
			// No account holds a login. Login.Good refuses the login of a user who was deleted.
			Category: CategoryLogin, New: func() Aggregate { return &Login{} },
			ForControl: true,
			Secret:     []EventFields{of(LoginBegun{}, "family", "hash"), of(LoginRefreshed{}, "hash")},
			Open:       []string{"reason"},
		},
		{
			Category: CategoryShare, New: func() Aggregate { return &Share{} },
			ForControl: true,
			Personal:   []EventFields{of(ShareCreated{}, "name", "target_host", "target", "targets", "socks", "access", "http", "health_check")},
			Secret:     []EventFields{of(ShareCreated{}, "hash", "socks", "access", "http")},
			Open:       []string{"protocol", "target_scheme", "held_by", "proxy_protocol", "encryption"},
			held:       &held{ids: (*Quota).shareIDs, ofClient: (*Quota).sharesOf, end: each(endShare)},
		},
		{
			// A webhook's address often holds a token that lets anybody write there.
			Category: CategoryWebhook, New: func() Aggregate { return &Webhook{} },
			ForControl: true,
			Personal:   []EventFields{of(WebhookCreated{}, "url", "description"), of(WebhookChanged{}, "url", "description")},
			Open:       []string{"events", "reason"},
			held:       &held{ids: (*Quota).webhookIDs, end: each(endWebhook)},
		},
		{
			Category: CategoryInvite, New: func() Aggregate { return &Invite{} },
			ForControl: true,
			Personal:   []EventFields{of(InviteCreated{}, "name")},
			Secret:     []EventFields{of(InviteCreated{}, "hash")},
			Open:       []string{"public_key"},
			held:       &held{ids: (*Quota).inviteIDs, end: each(endInvite)},
		},
		{
			// Whoever asks a name server for the token gets it.
			Category: CategoryDomain, New: func() Aggregate { return &Domain{} },
			ForControl: true,
			Personal:   []EventFields{of(OwnDomainCreated{}, "host")},
			Open:       []string{"token"},
			held:       &held{ids: (*Quota).domainIDs, end: endDomains},
		},
		{
			Category: CategoryClient, New: func() Aggregate { return &Client{} },
			Personal: []EventFields{of(ClientCreated{}, "name", "description"), of(ClientRegistered{}, "name"), of(ClientChanged{}, "name", "description")},
			Row:      []string{"name", "description"},
			Open:     []string{"public_key", "static_key", "nodes", "commands"},
			held:     &held{ids: (*Quota).ClientIDs, end: each(endManagedClient)},
		},
		{
			Category: CategoryErasure, New: func() Aggregate { return &Erasure{} },
			NoRow: "the row went when the user was deleted",
		},
		{
			Category: CategoryNode, New: func() Aggregate { return &Node{} }, Digits: 3,
			NoRow: "what was asked of a node is for the audit alone",
			Open:  []string{"node_id", "key", "names", "token"},
		},
		{
			// A port is held by its mapping, whose end frees it.
			Category: CategoryPort, New: func() Aggregate { return &Port{} },
			NoRow: "a public port stands in the row of its mapping",
			Open:  []string{"protocol"},
		},
		{
			// A host is held by its mappings, whose ends free it.
			Category: CategoryHost, New: func() Aggregate { return &Host{} },
			NoRow:    "a public host stands in the rows of its mappings",
			Personal: []EventFields{of(HostTaken{}, "host", "path"), of(HostFreed{}, "host", "path"), of(HostProved{}, "host"), of(HostReleased{}, "host")},
		},
	}
	for _, k := range kinds {
		kindOf[k.Category] = k
		collect(personal, k.Personal)
		for _, f := range k.Personal {
			for _, field := range f.Fields {
				if slices.Contains(k.Routed, field) {
					routed[f.Event] = append(routed[f.Event], field)
				}
			}
		}
		collect(secret, k.Secret)
	}
}

// The table by category, and its fields by the event's name.
var (
	kindOf   = map[string]Kind{}
	personal = map[string][]string{}
	routed   = map[string][]string{}
	secret   = map[string][]string{}
)

func collect(into map[string][]string, of []EventFields) {
	for _, f := range of {
		if into[f.Event] != nil {
			panic(fmt.Sprintf("the fields of %s stand in the table of kinds twice", f.Event))
		}
		into[f.Event] = f.Fields
	}
}

// Kinds lists the kinds of aggregates. The caller changes nothing of it.
func Kinds() []Kind { return kinds }

// NewAggregate gives the empty state for a stream of its category, or nil for
// an unknown category.
func NewAggregate(id StreamID) Aggregate {
	if k, ok := kindOf[id.Category()]; ok {
		return k.New()
	}
	return nil
}

// PersonalFields gives the fields of an event that are about a person.
func PersonalFields(event string) []string { return personal[event] }

// RoutedFields gives those of the personal fields that forwarders read.
func RoutedFields(event string) []string { return routed[event] }

// SecretFields gives the fields of an event that no answer shows.
func SecretFields(event string) []string { return secret[event] }

// endAll ends all that an account holds.
func endAll(s States, d *Decision, account int64) error {
	q := s.quota(account)
	return endHeld(s, d, account, func(h *held) []int64 { return h.ids(q) })
}

// endOfClient ends what an account holds and what is nothing without one client.
func endOfClient(s States, d *Decision, account, clientID int64) error {
	q := s.quota(account)
	return endHeld(s, d, account, func(h *held) []int64 {
		if h.ofClient == nil {
			return nil
		}
		return h.ofClient(q, clientID)
	})
}

// endHeld asks for all streams before it ends anything. Asking for one kind after the
// other would decide, and read, once for each kind.
func endHeld(s States, d *Decision, account int64, which func(*held) []int64) error {
	var streams []StreamID
	for _, k := range kinds {
		if k.held == nil {
			continue
		}
		for _, id := range which(k.held) {
			streams = append(streams, streamID(k.Category, id))
		}
	}
	if err := s.need(streams...); err != nil {
		return err
	}
	for _, k := range kinds {
		if k.held == nil {
			continue
		}
		if err := k.held.end(s, d, account, which(k.held)); err != nil {
			return err
		}
	}
	return nil
}
