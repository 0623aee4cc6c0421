package domain

import (
	"errors"
	"strings"
)

// Code names a refusal for machines. Codes are stable: scripts rely on them.
type Code string

// The codes of this package. httpapi maps them to statuses in one place.
const (
	CodeInvalid             Code = "invalid"
	CodeUserNotFound        Code = "user_not_found"
	CodeClientNotFound      Code = "client_not_found"
	CodeMappingNotFound     Code = "mapping_not_found"
	CodeUserDisabled        Code = "user_disabled"
	CodeClientDisabled      Code = "client_disabled"
	CodeUsernameTaken       Code = "username_taken"
	CodeEmailTaken          Code = "email_taken"
	CodeListenerTaken       Code = "listener_taken"
	CodeIDTaken             Code = "id_taken" // a new id is in use; the caller draws another
	CodeClientNotOwned      Code = "client_not_owned"
	CodeCommandsRefused     Code = "commands_refused" // an agent asks for what a client's Commands do not allow
	CodeNodeTaken           Code = "node_taken"       // another key has the node's id
	CodeNodeRevoked         Code = "node_revoked"
	CodeNodeName            Code = "node_name"       // a name that was not registered for the node
	CodeJoinTokenUsed       Code = "join_token_used" // a token for one use
	CodeKeyNotFound         Code = "key_not_found"
	CodeShareNotFound       Code = "share_not_found"
	CodeWebhookNotFound     Code = "webhook_not_found"
	CodeInviteNotFound      Code = "invite_not_found"
	CodeInviteEnded         Code = "invite_ended"   // used up, revoked or expired
	CodeShareEnded          Code = "share_ended"    // used up, revoked or expired
	CodeClientClaimed       Code = "client_claimed" // the client was claimed before
	CodeClaimRefused        Code = "claim_refused"  // the proof is not valid for the client
	CodeLoginRefused        Code = "login_refused"  // user name or password
	CodeLoginEnded          Code = "login_ended"
	CodeScopeDenied         Code = "scope_denied"     // the key would allow more than its owner may do
	CodeRegistrationOff     Code = "registration_off" // unknown agents get no identity
	CodeQuotaKeys           Code = "quota_keys"
	CodeQuotaShares         Code = "quota_shares"
	CodeQuotaInvites        Code = "quota_invites"
	CodeQuotaWebhooks       Code = "quota_webhooks"
	CodeProtocolUnavailable Code = "protocol_unavailable"
	CodeQuotaClients        Code = "quota_clients"
	CodeQuotaMappings       Code = "quota_mappings"
	CodeQuotaActive         Code = "quota_active_mappings"
	CodeQuotaClientMappings Code = "quota_client_mappings" // a client has as many as one may have
	CodeVersionConflict     Code = "version_conflict"      // If-Match names another version
	CodeIdempotencyMismatch Code = "idempotency_mismatch"  // key reused with another request
	CodeUnknownEvent        Code = "unknown_event"
	CodeOtherVersion        Code = "other_version"     // two servers of a cluster do not understand each other
	CodeStoreUnavailable    Code = "store_unavailable" // the log cannot be reached; a retry with the same key tells whether the command was written
)

// Fault is one thing wrong with a command, at a named field.
type Fault struct {
	Field   string // the field's name as the API spells it, for example "target_port"
	Message string
}

// Error is a refusal: a code for machines, a sentence for people and, when the
// command itself was malformed, every fault with its place.
type Error struct {
	Code    Code
	Message string
	Faults  []Fault
}

// Error implements error.
func (e *Error) Error() string {
	if len(e.Faults) == 0 || (len(e.Faults) == 1 && e.Faults[0].Message == e.Message) {
		return e.Message
	}
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.Field + ": " + f.Message
	}
	return e.Message + " (" + strings.Join(parts, "; ") + ")"
}

// CodeOf gives the code of the first [Error] in err's tree, or "".
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func refuse(code Code, message string) error { return &Error{Code: code, Message: message} }

// refuseAt is refuse with the one field that is the reason.
func refuseAt(code Code, message, field string) error {
	return &Error{Code: code, Message: message, Faults: []Fault{{Field: field, Message: message}}}
}
