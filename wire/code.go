package wire

import (
	"errors"
	"time"
)

// Code is why something was refused or ended, as a value both ends know. It is an
// error itself, so that errors.Is(err, wire.TargetOffline) asks for it through any
// wrapping. A code this side does not know is kept as it came.
type Code string

// Codes that answer an Open. They say nothing about the session, which goes on.
const (
	NoSuchMapping       Code = "no_such_mapping"
	MappingDisabled     Code = "mapping_disabled"
	QuotaConnections    Code = "quota_connections"
	QuotaTraffic        Code = "quota_traffic"
	TargetOffline       Code = "target_offline"
	DialRefused         Code = "dial_refused"
	DialTimeout         Code = "dial_timeout"
	DialUnreachable     Code = "dial_unreachable"
	TargetOverloaded    Code = "target_overloaded"
	VisitorLeft         Code = "visitor_left"
	VisitorDenied       Code = "visitor_denied"
	PolicyDenied        Code = "policy_denied"
	NodeDraining        Code = "node_draining"
	ProtocolUnavailable Code = "protocol_unavailable"
	Internal            Code = "internal"

	EncryptionUnavailable Code = "encryption_unavailable"
	EncryptionRequired    Code = "encryption_required"
	EncryptionFailed      Code = "encryption_failed"
	EncryptionReplayed    Code = "encryption_replayed"
	KeyRefused            Code = "key_refused"

	LaneUnavailable Code = "lane_unavailable"
)

// Codes that refuse or end a session, in Refused and GoAway.
const (
	BadCredential       Code = "bad_credential"
	UnknownClient       Code = "unknown_client"
	ClientDisabled      Code = "client_disabled"
	ClientRevoked       Code = "client_revoked"
	ClientDeleted       Code = "client_deleted"
	Superseded          Code = "superseded"
	RegistrationOff     Code = "registration_off"
	RegistrationLimited Code = "registration_limited"
	VersionUnsupported  Code = "version_unsupported"
	Malformed           Code = "malformed"
	ShuttingDown        Code = "shutting_down"
	TooMany             Code = "too_many"
	AlreadyConnected    Code = "already_connected"
	Disconnected        Code = "disconnected"
	Claimed             Code = "claimed"
	InviteRefused       Code = "invite_refused"
)

// Codes of a listener that an agent could not open, in Failure; Internal and
// ProtocolUnavailable serve there too.
const (
	AddressInUse       Code = "address_in_use"
	AddressDenied      Code = "address_denied"
	AddressUnavailable Code = "address_unavailable"
)

// meaning is what a code tells a person, and whether the same identity may hope
// for another answer by trying again.
type meaning struct {
	sentence  string
	permanent bool
}

var meanings = map[Code]meaning{
	NoSuchMapping:       {sentence: "there is no such mapping for this client"},
	MappingDisabled:     {sentence: "the mapping is disabled"},
	QuotaConnections:    {sentence: "the mapping has as many connections as its owner's quota allows"},
	QuotaTraffic:        {sentence: "the owner's quota allows no more traffic now"},
	TargetOffline:       {sentence: "the target client is not connected"},
	DialRefused:         {sentence: "the service refused the connection"},
	DialTimeout:         {sentence: "the service did not answer in time"},
	DialUnreachable:     {sentence: "the service cannot be reached from the target agent"},
	TargetOverloaded:    {sentence: "the target agent did not answer in time: its link or its machine is overloaded"},
	VisitorLeft:         {sentence: "the visitor left before the service had answered"},
	VisitorDenied:       {sentence: "the mapping's access rules do not let the visitor's address in"},
	PolicyDenied:        {sentence: "the target agent's policy does not allow this address"},
	NodeDraining:        {sentence: "the forwarder is draining and takes no new streams"},
	ProtocolUnavailable: {sentence: "the protocol is not available here"},
	Internal:            {sentence: "something failed on the other side"},

	EncryptionUnavailable: {sentence: "an agent of the mapping cannot encrypt from end to end: update it, or set the mapping's encryption to transport"},
	EncryptionRequired:    {sentence: "the connection is not encrypted from end to end, and must be"},
	EncryptionFailed:      {sentence: "the agents' handshake failed: the keys, or what the connection is for, are not the same at both ends"},
	EncryptionReplayed:    {sentence: "the connection was asked for before"},
	KeyRefused:            {sentence: "the key of the agent at the other end is not known, or not proved"},

	LaneUnavailable: {sentence: "there is no lane for the stream, which goes on as it is"},

	BadCredential:       {"the credential does not prove this client id", true},
	UnknownClient:       {"there is no such client", true},
	ClientDisabled:      {sentence: "the client is disabled"},
	ClientRevoked:       {"the client's credential was revoked", true},
	ClientDeleted:       {"the client was deleted", true},
	Superseded:          {"a newer agent with this client id has taken over", true},
	RegistrationOff:     {"this server gives no identities to unknown agents", true},
	RegistrationLimited: {sentence: "too many new agents from this address, try later"},
	VersionUnsupported:  {"no protocol version is spoken by both sides", true},
	Malformed:           {sentence: "the message could not be understood"},
	ShuttingDown:        {sentence: "the forwarder is shutting down"},
	TooMany:             {sentence: "too many connections, try later"},
	AlreadyConnected:    {sentence: "this agent has a session at this forwarder already"},
	Disconnected:        {sentence: "an operator disconnected the client; it may come back"},
	InviteRefused:       {"the invitation makes no client of this machine", true},
	Claimed:             {sentence: "the client was claimed and goes on under another id"},

	AddressInUse:       {sentence: "the local address is in use"},
	AddressDenied:      {sentence: "the agent may not listen on this address"},
	AddressUnavailable: {sentence: "the local address is not available on this machine"},
}

// Sentence explains the code to a person.
func (c Code) Sentence() string {
	if m, ok := meanings[c]; ok {
		return m.sentence
	}
	return "refused with a code this version does not know"
}

// Permanent tells whether trying again with the same identity is pointless.
func (c Code) Permanent() bool { return meanings[c].permanent }

// Known tells whether this version knows the code.
func (c Code) Known() bool { _, ok := meanings[c]; return ok }

// Error makes a code an error by itself.
func (c Code) Error() string { return string(c) + ": " + c.Sentence() }

// Refusal is a code with what came along.
type Refusal struct {
	Code       Code
	Message    string        // for people; the code's sentence when nothing better is known
	RetryAfter time.Duration // 0 = as the agent likes
	Permanent  bool          // trying again with the same identity is pointless
	ClientID   int64         // with Claimed: the id to come back as
	Least      uint64        // with EncryptionReplayed: a counter that would be taken
}

// Refuse is the refusal that the code alone stands for.
func Refuse(code Code) *Refusal {
	return &Refusal{Code: code, Message: code.Sentence(), Permanent: code.Permanent()}
}

// Error gives the code, then the sentence.
func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Message }

// Unwrap lets errors.Is compare with a Code.
func (r *Refusal) Unwrap() error { return r.Code }

// CodeOf gives the code in err, or Internal for an error that carries none, or ""
// for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var code Code
	if errors.As(err, &code) {
		return code
	}
	return Internal
}

// refusalOf gives the refusal in err, or the one its code stands for.
func refusalOf(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return Refuse(CodeOf(err))
}
