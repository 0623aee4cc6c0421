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
		Accounts:  []usage.Account{{Account: 100000001, Used: math.MaxInt64, Resets: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Share: 0.25}},
		Elsewhere: []usage.Open{{Mapping: 1001, Streams: 7}}}}
	s := p.serve("", func(c *ServerConfig) { c.Usage = b })
	client := p.dial([]string{s.address})
	// As large as a report can be: it must fit into a message.
	r := usage.Report{Reporter: "life", Node: "somebody else", Sequence: math.MaxInt64, Span: time.Hour, Last: true}
	for n := range int64(usage.MaxLines) {
		const far = math.MaxInt64 / 2
		r.Lines = append(r.Lines, usage.Line{Mapping: 1<<40 + n, Account: 999999999, Source: 999999999, Target: 999999999,
			Traffic: usage.Traffic{ToTarget: far, ToSource: far, Streams: 1 << 30}, Open: 1 << 30})
		r.Asks = append(r.Asks, usage.Ask{Account: 999999999 + n, Demand: usage.FullDemand})
		r.Mappings = append(r.Mappings, 1<<40+n)
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
