// Package wire says what goes over an agent's session: the order of messages,
// how they are framed, which codes refuse them and how an agent proves who it is.
// SPEC.md is the same for somebody without this code; package wirepb holds the
// generated messages.
//
// Its duty is to parse what strangers send with a bound on every length and
// without a panic. Its limit: it opens no connection and decides nothing. Whether
// a client may do what it asks is decided in package forwarder.
package wire

// MinVersion and MaxVersion are the protocol versions that this code speaks. A
// forwarder offers its range in Challenge, an agent chooses from it in Hello.
const (
	MinVersion = 1
	MaxVersion = 1
)

// ChooseVersion gives the highest version that both this code and a peer that
// offers min to max speak, or VersionUnsupported.
func ChooseVersion(min, max uint32) (uint32, error) {
	if min > max || min > MaxVersion || max < MinVersion {
		return 0, Refuse(VersionUnsupported)
	}
	if max > MaxVersion {
		return MaxVersion, nil
	}
	return max, nil
}
