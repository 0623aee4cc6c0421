package control

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/usage"
)

// book is a ledger in memory that remembers what came and can fail.
type book struct {
	mu      sync.Mutex
	reports []usage.Report
	answer  usage.Answer
	fails   []error // of the next reports, after counting them
}

func (b *book) Report(_ context.Context, r usage.Report) (usage.Answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, r)
	if len(b.fails) > 0 {
		err := b.fails[0]
		b.fails = b.fails[1:]
		return usage.Answer{}, err
	}
	return b.answer, nil
}

func TestUsageIsReportedAsItWasCounted(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	b := &book{answer: usage.Answer{Duplicate: true,
		Accounts:  []usage.Account{{Account: 100000001, Used: math.MaxInt64, Resets: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Fraction: 0.25}},
		Elsewhere: []usage.Open{{Mapping: 1001, Streams: 7}}}}
	s := p.serve("", func(c *ServerConfig) { c.Usage = b })
	client := p.dial([]string{s.address})
	user, from, to := p.pair()
	r := usage.Report{Reporter: "life", Node: "somebody else", Sequence: math.MaxInt64, Span: time.Hour, Last: true}
	for n := range 10 {
		const far = math.MaxInt64 / 2
		id, _ := p.mapping(user, from, to, 9000+n)
		r.Lines = append(r.Lines, usage.Line{Mapping: id, Account: user, Source: from, Target: to,
			Traffic: usage.Traffic{ToTarget: far, ToSource: far, Streams: 1 << 30}, Open: 1 << 30})
		r.Asks = append(r.Asks, usage.Ask{Account: 999999999 + int64(n), Demand: usage.FullDemand})
		r.Mappings = append(r.Mappings, id)
	}
	b.fails = []error{errors.New("secret of the database")}
	_, err := client.ReportUsage(t.Context(), r) // the forwarder comes back with the same
	wantCode(t, err, domain.CodeStoreUnavailable)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the node is told %v", err)
	}
	answer, err := client.ReportUsage(t.Context(), r)
	must(t, err)
	if !reflect.DeepEqual(answer, b.answer) {
		t.Errorf("answered %+v, want %+v", answer, b.answer)
	}
	want := r
	want.Node, want.Reporter = "node-001", "node-001/life" // as its certificate says
	if len(b.reports) != 2 {
		t.Fatalf("%d attempts, want 2", len(b.reports))
	}
	for _, got := range b.reports {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("arrived as %.300v", got)
		}
	}
	_, err = client.ReportUsage(t.Context(), usage.Report{Reporter: "life"})
	wantCode(t, err, domain.CodeInvalid)

	none := p.serve("")
	_, err = p.dial([]string{none.address}).ReportUsage(t.Context(), usage.Report{Reporter: "life", Sequence: 1})
	if err == nil {
		t.Error("a control plane that counts nothing says it has")
	}
}

// As large as a report can be, it fits into a message.
func TestTheLargestReportFits(t *testing.T) {
	r := usage.Report{Reporter: strings.Repeat("x", 200), Sequence: math.MaxInt64, Span: time.Hour, Last: true}
	for n := range int64(usage.MaxLines) {
		const far = math.MaxInt64 / 2
		r.Lines = append(r.Lines, usage.Line{Mapping: 1<<40 + n, Account: 999999999, Source: 999999999, Target: 999999999,
			Traffic: usage.Traffic{ToTarget: far, ToSource: far, Streams: 1 << 30}, Open: 1 << 30})
		r.Asks = append(r.Asks, usage.Ask{Account: 999999999 + n, Demand: usage.FullDemand})
		r.Mappings = append(r.Mappings, 1<<40+n)
	}
	if size := proto.Size(reportMessage(r)); size > maxRequest {
		t.Errorf("it has %d bytes, and the State service takes %d", size, maxRequest)
	}
}

// A forwarder says what a mapping carried. Who pays for that, the log says.
func TestUsageIsChargedToWhomTheLogSays(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	b := &book{}
	client := p.dial([]string{p.serve("", func(c *ServerConfig) { c.Usage = b }).address})
	user, from, to := p.pair()
	id, _ := p.mapping(user, from, to, 9000)
	stranger := p.user(domain.Limits{})
	theirs := p.client(stranger)
	carried := usage.Traffic{ToTarget: 1 << 30, Streams: 1}
	_, err := client.ReportUsage(t.Context(), usage.Report{Reporter: "life", Sequence: 1, Lines: []usage.Line{
		{Mapping: id, Account: stranger, Source: theirs, Target: theirs, Traffic: carried},
		{Mapping: 99_999, Account: stranger, Source: theirs, Target: theirs, Traffic: carried},
	}})
	must(t, err)
	if want := []usage.Line{{Mapping: id, Account: user, Source: from, Target: to, Traffic: carried}}; !reflect.DeepEqual(b.reports[0].Lines, want) {
		t.Errorf("counted %+v, want %+v", b.reports[0].Lines, want)
	}

	// Also when the log has moved on, and the mapping with it.
	p.submit(domain.DeleteMapping{ID: id})
	_, err = client.ReportUsage(t.Context(), usage.Report{Reporter: "life", Sequence: 2, Lines: []usage.Line{
		{Mapping: id, Account: user, Source: from, Target: to, Traffic: carried}}})
	must(t, err)
	if got := b.reports[1].Lines; len(got) != 1 || got[0].Account != user {
		t.Errorf("of a deleted mapping %+v was counted", got)
	}
}
