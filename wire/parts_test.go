package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

func manyListeners(n, name int) (all []*wirepb.Listener) {
	for i := range n {
		all = append(all, &wirepb.Listener{MappingId: int64(1000 + i), Protocol: "tcp", Host: "127.0.0.1", Port: uint32(1 + i), Version: 7,
			Name: strings.Repeat("n", name)})
	}
	return all
}

// What goes out in parts is the same when it is put together, and each part fits.
func TestAssignInParts(t *testing.T) {
	withdraw := make([]int64, 20_000)
	for i := range withdraw {
		withdraw[i] = 1 << 60
	}
	for name, whole := range map[string]*wirepb.Assign{
		"nothing":          {Version: 3, Full: true},
		"unchanged":        {Version: 3, Unchanged: true},
		"one":              {Version: 3, Listeners: manyListeners(1, 10)},
		"many":             {Version: 3, Full: true, Listeners: manyListeners(14_000, 400)},
		"many go":          {Version: 3, Withdraw: withdraw},
		"many come and go": {Version: 3, Withdraw: withdraw, Listeners: manyListeners(3_000, 100)},
		"a huge one":       {Version: 3, Listeners: append(manyListeners(2, MaxPart), manyListeners(2, 1)...)},
	} {
		t.Run(name, func(t *testing.T) {
			var a Assembly
			parts := AssignParts(whole)
			for i, part := range parts {
				if size := proto.Size(part); size > MaxPart+100 && len(part.Listeners) > 1 {
					t.Errorf("part %d has %d bytes", i, size)
				}
				if i > 0 && part.Full {
					t.Errorf("part %d begins anew", i)
				}
				got, err := a.Add(proto.CloneOf(part))
				if err != nil {
					t.Fatal(err)
				}
				if last := i == len(parts)-1; (got != nil) != last {
					t.Fatalf("part %d of %d gives %v", i, len(parts), got != nil)
				} else if last && !proto.Equal(got, whole) {
					t.Error("the parts give another configuration")
				}
			}
		})
	}
}

func TestAckInParts(t *testing.T) {
	for _, n := range []int{0, 1, 14_000} {
		whole := &wirepb.Ack{Version: 9}
		for i := range n {
			whole.Failures = append(whole.Failures, &wirepb.Failure{MappingId: int64(i), Code: string(AddressInUse), Message: "listen tcp 127.0.0.1:80: bind: address already in use"})
		}
		var got wirepb.Ack
		parts := AckParts(whole)
		for i, part := range parts {
			if _, err := AppendControl(nil, &wirepb.Control{Message: &wirepb.Control_Ack{Ack: part}}); err != nil {
				t.Fatal(err)
			}
			if part.Version != 9 || part.More != (i < len(parts)-1) {
				t.Errorf("part %d of %d has version %d, more %v", i, len(parts), part.Version, part.More)
			}
			got.Failures = append(got.Failures, part.Failures...)
		}
		if got.Version = 9; !proto.Equal(&got, whole) {
			t.Errorf("the parts of %d failures give %d", n, len(got.Failures))
		}
	}
}

// Parts that do not belong together end the session; so does one without an end.
func TestAssemblyRefuses(t *testing.T) {
	begun := func() *Assembly {
		a := new(Assembly)
		if whole, err := a.Add(&wirepb.Assign{Version: 5, Full: true, More: true, Listeners: manyListeners(1, 1)}); whole != nil || err != nil {
			t.Fatal(whole, err)
		}
		return a
	}
	for name, second := range map[string]*wirepb.Assign{
		"another version": {Version: 6, More: true},
		"a new beginning": {Version: 5, Full: true},
		"unchanged":       {Version: 5, Unchanged: true},
		"too many":        {Version: 5, Withdraw: make([]int64, MaxListeners)},
	} {
		if whole, err := begun().Add(second); whole != nil || !errors.Is(err, Malformed) {
			t.Errorf("%s: %v, %v", name, whole != nil, err)
		}
	}
	if _, err := new(Assembly).Add(&wirepb.Assign{Unchanged: true, More: true}); !errors.Is(err, Malformed) {
		t.Errorf("unchanged in parts: %v", err)
	}
}

// A configuration is told in as many parts as its size needs, and not in many more.
func ExampleAssignParts() {
	parts := AssignParts(&wirepb.Assign{Version: 1, Full: true, Listeners: manyListeners(2_600, 400)})
	for _, part := range parts[:2] {
		fmt.Println(part.Full, part.More)
	}
	fmt.Println(len(parts), parts[len(parts)-1].More)
	// Output:
	// true true
	// false true
	// 18 false
}
