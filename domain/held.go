package domain

import "time"

// Holder says whose agent holds a mapping. A mapping that somebody holds is
// ephemeral: it is of a program that runs in the foreground, and ends with it.
type Holder string

// The holders. The zero value is nobody: the mapping lasts.
const (
	HeldBySource Holder = "source"
	HeldByTarget Holder = "target"
	HeldByBoth   Holder = "both" // it ends when one of them is away
)

// HeldGrace is how long a holder's agent may be away. A server that is started
// anew, a laptop in a tunnel and a program that is killed and started again are
// back by then, and find everything as it was.
const HeldGrace = time.Minute

// CodeMappingKept refuses the end of a mapping that nobody holds any more: somebody
// has made it last.
const CodeMappingKept Code = "mapping_kept"

func (h Holder) source() bool { return h == HeldBySource || h == HeldByBoth }
func (h Holder) target() bool { return h == HeldByTarget || h == HeldByBoth }

// andSource gives the holder of what the source holds too.
func (h Holder) andSource() Holder {
	if h.target() {
		return HeldByBoth
	}
	return HeldBySource
}

func (h Holder) check(f *faults, kind OriginKind) {
	if h.source() && kind != OriginAgent {
		f.add("held_by", "must be target or left out: there is no source client")
	}
}

// Holders are the clients whose agents hold the mapping, none for one that lasts.
func (m *Mapping) Holders() (clients []int64) {
	if m.HeldBy.source() {
		clients = append(clients, m.SourceClientID)
	}
	if m.HeldBy.target() {
		clients = append(clients, m.TargetClientID)
	}
	return clients
}

// Holders are the clients whose agents hold the share, none for one that lasts.
func (h *Share) Holders() []int64 {
	if h.HeldBy.target() {
		return []int64{h.TargetClientID}
	}
	return nil
}
