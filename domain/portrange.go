package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortRange is a range of ports, both ends included. The zero value is none. In JSON it
// is a number, or for more than one port a text, FROM-TO.
type PortRange struct{ First, Last int }

// MaxMappingPorts is how many public ports one mapping may have. Each of them is a
// listener at every forwarder that has it, and a record when it is taken.
const MaxMappingPorts = 1024

// OnePort is the range of one port; that of 0 is none.
func OnePort(port int) PortRange { return PortRange{port, port} }

// Has reports whether a port is in the range.
func (r PortRange) Has(port int) bool { return port != 0 && port >= r.First && port <= r.Last }

// Holds reports whether all of another range is in the range.
func (r PortRange) Holds(o PortRange) bool { return r.Has(o.First) && r.Has(o.Last) }

// Count is how many ports there are.
func (r PortRange) Count() int {
	if r.First == 0 {
		return 0
	}
	return r.Last - r.First + 1
}

// All gives the ports, in order.
func (r PortRange) All() []int {
	ports := make([]int, r.Count())
	for i := range ports {
		ports[i] = r.First + i
	}
	return ports
}

// String is the port, or FROM-TO.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ParsePortRange reads a port, or FROM-TO. Whether there are such ports is not its
// matter.
func ParsePortRange(text string) (PortRange, error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 31)
	last, err2 := strconv.ParseUint(to, 10, 31)
	if err := errors.Join(err1, err2); err != nil {
		return PortRange{}, fmt.Errorf("%q is neither a port nor FROM-TO, for example 20000-20099", text)
	}
	return PortRange{int(first), int(last)}, nil
}

// MarshalJSON implements [json.Marshaler].
func (r PortRange) MarshalJSON() ([]byte, error) {
	if r.First == r.Last {
		return strconv.AppendInt(nil, int64(r.First), 10), nil
	}
	return json.Marshal(r.String())
}

// UnmarshalJSON implements [json.Unmarshaler].
func (r *PortRange) UnmarshalJSON(data []byte) error {
	if len(data) == 0 || data[0] != '"' {
		var port int
		err := json.Unmarshal(data, &port)
		*r = OnePort(port)
		return err
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	given, err := ParsePortRange(text)
	*r = given
	return err
}

// publicPorts checks which ports a mapping asks for.
func (f *faults) publicPorts(field string, r PortRange) {
	switch {
	case r.First == r.Last && (r.First < 0 || r.First > 65535):
		f.add(field, fmt.Sprintf("must be 0 to 65535, is %d", r.First))
	case r == PortRange{} || r.First == r.Last:
	case r.First < 1 || r.Last > 65535 || r.Last < r.First:
		f.add(field, fmt.Sprintf("must be a port or FROM-TO with ports of 1 to 65535, the lower one first, is %s", r))
	case r.Count() > MaxMappingPorts:
		f.add(field, fmt.Sprintf("may be up to %d ports, is %d", MaxMappingPorts, r.Count()))
	}
}

// portsBeside gives the ports of a range that are not in another.
func portsBeside(r, other PortRange) []int {
	return slices.DeleteFunc(r.All(), other.Has)
}
