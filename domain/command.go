package domain

import (
	"slices"
	"strings"
	"time"
)

// Event is a fact, past tense. Its name is a constant of this package and is
// never derived from the Go type.
type Event interface {
	// EventName is the stable name under which the event is stored.
	EventName() string
}

// Aggregate is the fold of one event stream; [Kinds] lists what there is. The
// zero state of a stream without records has Exists() false.
type Aggregate interface {
	// Apply folds one event, with the time it was decided at. It never refuses;
	// events of other aggregates leave the state as it is.
	Apply(event Event, at time.Time)
	// Exists reports whether the stream has begun, also when it has since ended.
	Exists() bool
	// Clone gives a copy that shares nothing that Apply changes.
	Clone() Aggregate
}

// Command is a wish, imperative. It carries everything Decide needs that is
// not in the event streams: new ids, hashes, keys.
type Command interface {
	// CommandName is the stable name that goes into [Metadata].
	CommandName() string
	// Subject is the event stream the command is about; an If-Match speaks of
	// its version.
	Subject() StreamID
	// Account is the account the records belong to and within which idempotency
	// keys are unique. 0 when only the streams can tell; see [Decision.Account].
	Account() int64
	// Reads lists the event streams Decide needs, Subject first. All of them are
	// guarded: the append fails if one of them moved since it was read.
	Reads() []StreamID
	// Decide gives the events, or a *[Error], or a *[NeedStreams] when it found
	// that it must read more. It changes nothing.
	Decide(states States) (Decision, error)
}

// States holds the folded event streams a command reads.
type States map[StreamID]Aggregate

// Fold applies records, in order, to an aggregate.
func Fold(to Aggregate, records []Record) error {
	for _, r := range records {
		event, err := r.Event()
		if err != nil {
			return err
		}
		to.Apply(event, r.Meta.At)
	}
	return nil
}

// NeedStreams is what Decide returns when a stream it has read points to others
// it must read too: load them, add them to the states and decide again.
type NeedStreams struct{ Streams []StreamID }

// Error implements error.
func (e *NeedStreams) Error() string {
	names := make([]string, len(e.Streams))
	for i, s := range e.Streams {
		names[i] = string(s)
	}
	return "decide needs streams " + strings.Join(names, ", ")
}

// need returns a *NeedStreams naming those of ids that are not in the states.
func (s States) need(ids ...StreamID) error {
	missing := slices.DeleteFunc(slices.Clone(ids), func(id StreamID) bool { _, ok := s[id]; return ok })
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return &NeedStreams{Streams: slices.Compact(missing)}
}

func (s States) user(id int64) *User       { return state[*User](s, UserStream(id)) }
func (s States) client(id int64) *Client   { return state[*Client](s, ClientStream(id)) }
func (s States) mapping(id int64) *Mapping { return state[*Mapping](s, MappingStream(id)) }
func (s States) quota(id int64) *Quota     { return state[*Quota](s, QuotaStream(id)) }

func (s States) key(id int64) *Key     { return state[*Key](s, KeyStream(id)) }
func (s States) login(id int64) *Login { return state[*Login](s, LoginStream(id)) }
func (s States) share(id int64) *Share { return state[*Share](s, ShareStream(id)) }

func (s States) domain(id int64) *Domain { return state[*Domain](s, OwnDomainStream(id)) }

func (s States) invite(id int64) *Invite { return state[*Invite](s, InviteStream(id)) }

func (s States) erasure(account int64) *Erasure { return state[*Erasure](s, ErasureStream(account)) }
func (s States) webhook(id int64) *Webhook      { return state[*Webhook](s, WebhookStream(id)) }
func (s States) port(number int) *Port          { return state[*Port](s, PortStream(number)) }
func (s States) host(name string) *Host         { return state[*Host](s, HostStream(name)) }

func state[A Aggregate](s States, id StreamID) A {
	if a, ok := s[id].(A); ok {
		return a
	}
	return NewAggregate(id).(A)
}

// Change is one event for one event stream.
type Change struct {
	Stream StreamID
	Event  Event
	// Owner is the account the record belongs to; 0 = the account of the decision. A
	// mapping of one account may count against the quota of another, and the history
	// of that other account must hold the record.
	Owner int64
}

// Claim is a unique name held by an aggregate, taken and given back in the same
// append as the events: the store refuses a second owner.
type Claim struct {
	Scope string
	Value string
	Owner StreamID
}

// The scopes of claims.
const (
	ClaimUsername = "username" // value: the lower-cased name
	ClaimEmail    = "email"    // value: the lower-cased address
	ClaimListener = "listener" // value: client/protocol/host:port
	// ClaimJoinToken is of a token with which one node may join; value: its id. It is
	// never given back.
	ClaimJoinToken = "join_token"
)

// TakenCode gives the refusal for a claim of this scope that another aggregate holds.
func TakenCode(scope string) Code {
	switch scope {
	case ClaimUsername:
		return CodeUsernameTaken
	case ClaimEmail:
		return CodeEmailTaken
	case ClaimListener:
		return CodeListenerTaken
	case ClaimJoinToken:
		return CodeJoinTokenUsed
	}
	return CodeInvalid
}

// Decision is the result of a command. A decision without changes is a success that
// writes nothing: the state is already the one that the command asks for.
type Decision struct {
	Account  int64 // the account of the records; overrides Command.Account when not 0
	Changes  []Change
	Releases []Claim // given back before Claims are taken, so a rename is one command
	Claims   []Claim
	Closes   []StreamID // streams that take no records after these changes
}

// add plans events. A record in the quota of an account belongs to that account,
// also when the command is another account's.
func (d *Decision) add(stream StreamID, events ...Event) {
	var owner int64
	if stream.Category() == CategoryQuota {
		owner = stream.Number()
	}
	d.addOwned(owner, stream, events...)
}

// addOwned plans events of another account than the decision's.
func (d *Decision) addOwned(owner int64, stream StreamID, events ...Event) {
	if owner == d.Account {
		owner = 0
	}
	for _, e := range events {
		d.Changes = append(d.Changes, Change{Stream: stream, Event: e, Owner: owner})
	}
}

// exchange gives back the claims that are no longer wanted, and takes the new ones.
func (d *Decision) exchange(was, is []Claim) {
	for _, claim := range was {
		if !slices.Contains(is, claim) {
			d.Releases = append(d.Releases, claim)
		}
	}
	for _, claim := range is {
		if !slices.Contains(was, claim) {
			d.Claims = append(d.Claims, claim)
		}
	}
}

// Submission is a command on its way to the log.
type Submission struct {
	Command Command
	Meta    Metadata
	// Key makes the command idempotent within its scope ("" = it is not): the
	// same key with the same Hash gives the first receipt again; with another
	// Hash it is refused with [CodeIdempotencyMismatch].
	Key string
	// KeyScope separates the keys of different callers, usually the actor.
	KeyScope string
	// Hash identifies the request, without ids drawn for it.
	Hash [32]byte
	// Expect, when set, is the version the subject must have ([CodeVersionConflict]).
	Expect *Version
	// Untold are scopes of claims that others hold of which a preview does not tell: who
	// may not see whose a name is must not find out by asking what would happen.
	Untold []string
}

// Receipt is the result of a submission.
type Receipt struct {
	// Position is the last position of the append. For a command that changed
	// nothing it is a position that already shows what the command asked for.
	Position Position
	// Subject is the stream the original command was about. For a duplicate it
	// names the first command's subject, whatever id this one drew.
	Subject StreamID
	// Version is the subject's version after the command.
	Version Version
	// State is the subject's state after the command, a copy of the caller's own.
	State Aggregate
	// Duplicate reports that the key had been used: nothing was written now.
	Duplicate bool
	// Records are those the command wrote (the first time), in order.
	Records []Record
}
