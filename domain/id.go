package domain

// Sequence names a source of new ids. Ids of one sequence rise and are never
// handed out twice; holes are allowed.
type Sequence string

// The sequences and the first id of each (requirements §10).
const (
	SequenceUser    Sequence = "user"
	SequenceClient  Sequence = "client"
	SequenceMapping Sequence = "mapping"

	FirstUserID    int64 = 100000001
	FirstClientID  int64 = 600000000
	FirstMappingID int64 = 1001

	// Ids of anonymous clients are drawn at random from this closed range; the
	// store refuses a collision, the caller draws again.
	FirstAnonymousID int64 = 200000000
	LastAnonymousID  int64 = 299999999
)

// First gives the lowest id of the sequence, or 0 for an unknown one.
func (s Sequence) First() int64 {
	switch s {
	case SequenceUser:
		return FirstUserID
	case SequenceClient:
		return FirstClientID
	case SequenceMapping:
		return FirstMappingID
	}
	return 0
}

// IsAnonymous reports whether a client id is one of an anonymous client.
func IsAnonymous(clientID int64) bool {
	return clientID >= FirstAnonymousID && clientID <= LastAnonymousID
}

// UserStream names the event stream of a user.
func UserStream(id int64) StreamID { return streamID(CategoryUser, id) }

// KeyStream names the event stream of an API key.
func KeyStream(id int64) StreamID { return streamID(CategoryKey, id) }

// LoginStream names the event stream of a login.
func LoginStream(id int64) StreamID { return streamID(CategoryLogin, id) }

// ShareStream names the event stream of a share.
func ShareStream(id int64) StreamID { return streamID(CategoryShare, id) }

// InviteStream names the event stream of an invitation.
func InviteStream(id int64) StreamID { return streamID(CategoryInvite, id) }

// OwnDomainStream names the event stream of a domain of a user's own.
func OwnDomainStream(id int64) StreamID { return streamID(CategoryDomain, id) }

// ErasureStream names the event stream that tells of the erasure of a user.
func ErasureStream(account int64) StreamID { return streamID(CategoryErasure, account) }

// WebhookStream names the event stream of a webhook.
func WebhookStream(id int64) StreamID { return streamID(CategoryWebhook, id) }

// NodeStream names the event stream of a node, which is the node's id: node-001.
func NodeStream(number int64) StreamID { return streamID(CategoryNode, number) }

// PortStream names the event stream of a public port.
func PortStream(port int) StreamID { return streamID(CategoryPort, int64(port)) }

// HostStream names the event stream of a public host, by its name.
func HostStream(name string) StreamID { return streamID(CategoryHost, hostNumber(name)) }

// ClientStream names the event stream of a client.
func ClientStream(id int64) StreamID { return streamID(CategoryClient, id) }

// MappingStream names the event stream of a mapping.
func MappingStream(id int64) StreamID { return streamID(CategoryMapping, id) }

// QuotaStream names the event stream of an account's quota. An account is a
// user, or an anonymous client, which is its own account until it is claimed.
func QuotaStream(account int64) StreamID { return streamID(CategoryQuota, account) }
