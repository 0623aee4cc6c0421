package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// codec ties an event's stable name to its Go type. schema is the number the
// type has now; upcasts[i] turns data of schema i+1 into schema i+2.
type codec struct {
	schema  int
	decode  func([]byte) (Event, error)
	upcasts []func(json.RawMessage) (json.RawMessage, error)
}

// codecs lists every event ever published. A name is never removed and never
// given another meaning; a changed shape raises the schema and adds an upcast.
var codecs = map[string]codec{}

func init() {
	// An init and not a literal, so that a name stands in one place: its type.
	register[UserCreated](1)
	register[UserChanged](1)
	register[UserPasswordSet](1)
	register[UserDisabled](1)
	register[UserEnabled](1)
	register[UserDeleted](1)
	register[UserErased](1)
	register[ClientCreated](2, reachedByAll)
	register[ClientRegistered](1)
	register[ClientChanged](1)
	register[ClientCommandsSet](1)
	register[ClientCredentialRotated](1)
	register[ClientDisabled](1)
	register[ClientEnabled](1)
	register[ClientDeleted](1)
	register[MappingCreated](15, same, same, same, same, same, same, same, same, same, same, same, same, same, same)
	register[MappingChanged](14, same, same, same, same, same, same, same, same, same, same, same, same, same)
	register[MappingDisabled](1)
	register[MappingEnabled](1)
	register[MappingDeleted](1)
	register[QuotaSet](3, same, same)
	register[QuotaTaken](3, same, same)
	register[QuotaReturned](1)
	register[UserRoleSet](1)
	register[UserPlanSet](1)
	register[ClientClaimed](1)
	register[MappingMoved](1)
	register[QuotaMoved](2, same)
	register[KeyCreated](1)
	register[KeyRevoked](1)
	register[LoginBegun](1)
	register[LoginRefreshed](1)
	register[LoginEnded](1)
	register[ShareCreated](13, same, same, same, same, same, same, same, same, same, same, same, same)
	register[ShareRedeemed](1)
	register[ShareRevoked](1)
	register[InviteCreated](1)
	register[InviteRedeemed](1)
	register[InviteRevoked](1)
	register[OwnDomainCreated](2, same)
	register[OwnDomainVerified](1)
	register[OwnDomainDeleted](1)
	register[HostProved](2, same)
	register[HostReleased](2, same)
	register[WebhookCreated](1)
	register[WebhookChanged](1)
	register[WebhookSecretRotated](1)
	register[WebhookDisabled](1)
	register[WebhookEnabled](1)
	register[WebhookDeleted](1)
	register[ClientDisconnectRequested](1)
	register[NodeDrainRequested](1)
	register[NodeCertified](1)
	register[NodeRevoked](1)
	register[PortTaken](1)
	register[PortFreed](1)
	register[HostTaken](3, same, same)
	register[HostFreed](2, same)
	register[ClientKeyAnnounced](1)
}

// same upcasts to a schema that only added fields, which were empty before, or whose
// fields are sealed since ([PersonalFields]): a version that cannot open them must not
// take what it reads for an address.
func same(data json.RawMessage) (json.RawMessage, error) { return data, nil }

func register[E Event](schema int, upcasts ...func(json.RawMessage) (json.RawMessage, error)) {
	var zero E
	codecs[zero.EventName()] = codec{schema: schema, upcasts: upcasts, decode: func(data []byte) (Event, error) {
		var e E
		err := decodeObject(data, &e)
		return e, err
	}}
}

// decodeObject reads one JSON object and nothing else. encoding/json takes null
// for an empty struct, which would make an event of zeros out of broken data.
func decodeObject(data []byte, into any) error {
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("want a JSON object")
	}
	d := decoders.Get().(*decoder)
	d.source.Reset(data)
	start := d.InputOffset()
	if err := d.Decode(into); err != nil {
		return err // a decoder that has failed keeps its error, so it is not reused
	}
	rest := data[d.InputOffset()-start:]
	if len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("data behind the JSON object")
	}
	if len(rest) == 0 && d.source.Len() == 0 {
		decoders.Put(d) // a decoder with unread input would give it before the next object
	}
	return nil
}

// decoder reads one object after the other. Only a decoder can refuse unknown
// fields, and a new decoder for every event was most of the memory of a replay.
type decoder struct {
	*json.Decoder
	source *bytes.Reader
}

var decoders = sync.Pool{New: func() any {
	source := bytes.NewReader(nil)
	d := json.NewDecoder(source)
	d.DisallowUnknownFields()
	return &decoder{d, source}
}}

// Encode gives the stored form of an event: its name, schema and JSON data.
func Encode(e Event) (name string, schema int, data []byte, err error) {
	c, ok := codecs[e.EventName()]
	if !ok {
		return "", 0, nil, &Error{Code: CodeUnknownEvent, Message: fmt.Sprintf("The event %q is not known to this version.", e.EventName())}
	}
	data, err = json.Marshal(e)
	return e.EventName(), c.schema, data, err
}

// Decode reads the stored form of an event, upcasting old schemas one step at a
// time. A name or schema this version does not know is [CodeUnknownEvent].
func Decode(name string, schema int, data []byte) (Event, error) {
	c, ok := codecs[name]
	if !ok || schema < 1 || schema > c.schema {
		return nil, &Error{Code: CodeUnknownEvent,
			Message: fmt.Sprintf("The event %q of schema %d is not known to this version; it was written by a newer one.", name, schema)}
	}
	raw := json.RawMessage(data)
	for _, upcast := range c.upcasts[schema-1:] {
		var err error
		if raw, err = upcast(raw); err != nil {
			return nil, fmt.Errorf("upcast %s from schema %d: %w", name, schema, err)
		}
	}
	e, err := c.decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	return e, nil
}
