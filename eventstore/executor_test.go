package eventstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

// stores are the stores over which the executor must behave in the same way.
var stores = map[string]func(t testing.TB) eventstore.Store{
	"memory":   func(testing.TB) eventstore.Store { return eventstoretest.NewMemory() },
	"sqlite":   openSQLite,
	"postgres": func(t testing.TB) eventstore.Store { return openPostgres(t, services.Postgres(t)) },
}

func eachStore(t *testing.T, test func(t *testing.T, s eventstore.Store)) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func openSQLite(t testing.TB) eventstore.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), path)
	return closing(t, s, err)
}

func openPostgres(t testing.TB, url string) eventstore.Store {
	t.Helper()
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	return closing(t, s, err)
}

func closing(t testing.TB, s eventstore.Store, err error) eventstore.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// start runs an executor until the test ends.
func start(t testing.TB, s eventstore.Store, options eventstore.ExecutorOptions) *eventstore.Executor {
	t.Helper()
	e := eventstore.NewExecutor(s, options)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("executor: %v", err)
		}
	})
	return e
}

func submission(c domain.Command) domain.Submission {
	return domain.Submission{Command: c, Meta: domain.Metadata{At: time.Now(), Actor: "key:test"}}
}

func keyed(c domain.Command, key string) domain.Submission {
	s := submission(c)
	s.Key, s.KeyScope, s.Hash = key, "key:test", sha256.Sum256([]byte(key))
	return s
}

func submit(t testing.TB, e *eventstore.Executor, s domain.Submission) domain.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := e.Submit(ctx, s)
	if err != nil {
		t.Fatalf("%s: %v", s.Command.CommandName(), err)
	}
	return r
}

func refuse(t testing.TB, e *eventstore.Executor, s domain.Submission, want domain.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := e.Submit(ctx, s); domain.CodeOf(err) != want {
		t.Fatalf("%s: %v, want %s", s.Command.CommandName(), err, want)
	}
}

func id(t testing.TB, e *eventstore.Executor, s domain.Sequence) int64 {
	t.Helper()
	n, err := e.NextID(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newUser(t testing.TB, e *eventstore.Executor, name string, limits domain.Limits) int64 {
	t.Helper()
	n := id(t, e, domain.SequenceUser)
	submit(t, e, submission(domain.CreateUser{ID: n, Username: name, Email: name + "@example.org", Limits: limits}))
	return n
}

func newClient(t testing.TB, e *eventstore.Executor, user int64) int64 {
	t.Helper()
	n := id(t, e, domain.SequenceClient)
	submit(t, e, submission(domain.CreateClient{ID: n, UserID: user, Name: "c", PublicKey: make([]byte, 32)}))
	return n
}

func mapping(id, user, client int64, port int) domain.CreateMapping {
	return domain.CreateMapping{ID: id, UserID: user, SourceClientID: client, TargetClientID: client,
		Protocol: domain.ProtocolTCP, Parts: domain.Parts{Origin: domain.Origin{LocalPort: port}, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 80}}}
}

// fold gives the state of a stream from the log alone.
func fold(t testing.TB, s eventstore.Store, id domain.StreamID) (domain.Aggregate, domain.Version) {
	t.Helper()
	state := domain.NewAggregate(id)
	records, err := s.ReadStream(t.Context(), id, 0, 100000)
	if err == nil {
		err = domain.Fold(state, records)
	}
	if err != nil {
		t.Fatal(err)
	}
	return state, domain.Version(len(records))
}

func limit(n int64) *int64 { return &n }

func TestQuotaHoldsUnderConcurrentCreates(t *testing.T) {
	eachStore(t, func(t *testing.T, s eventstore.Store) {
		e := start(t, s, eventstore.ExecutorOptions{})
		user := newUser(t, e, "ann", domain.Limits{MaxMappings: limit(10)})
		client := newClient(t, e, user)
		created, refused := createMappings(t, 50, user, client, e)
		if created != 10 || refused != 40 {
			t.Fatalf("%d created, %d refused; want 10 and 40", created, refused)
		}
		quota, _ := fold(t, s, domain.QuotaStream(user))
		if n := len(quota.(*domain.Quota).Mappings); n != 10 {
			t.Fatalf("the log holds %d mappings, want 10", n)
		}
	})
}

// createMappings lets n callers at once create a mapping each, by the executors in
// turn.
func createMappings(t *testing.T, n int, user, client int64, executors ...*eventstore.Executor) (created, refused int) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			e := executors[i%len(executors)]
			id, err := e.NextID(t.Context(), domain.SequenceMapping)
			if err == nil {
				_, err = e.Submit(t.Context(), submission(mapping(id, user, client, 1000+i)))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		switch {
		case err == nil:
			created++
		case domain.CodeOf(err) == domain.CodeQuotaMappings:
			refused++
		default:
			t.Errorf("create: %v", err)
		}
	}
	return created, refused
}

func TestTwoExecutorsOverOneLog(t *testing.T) {
	url := services.Postgres(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	ea, eb := start(t, a, eventstore.ExecutorOptions{}), start(t, b, eventstore.ExecutorOptions{})
	user := newUser(t, ea, "ann", domain.Limits{MaxMappings: limit(45)})
	client := newClient(t, eb, user)
	created, refused := createMappings(t, 60, user, client, ea, eb)
	if created != 45 || refused != 15 {
		t.Fatalf("%d created, %d refused; want 45 and 15", created, refused)
	}
	quota, _ := fold(t, a, domain.QuotaStream(user))
	if n := len(quota.(*domain.Quota).Mappings); n != 45 {
		t.Fatalf("the log holds %d mappings, want 45", n)
	}
}

// A refusal and a no-change write nothing, so no version check protects them. They must
// not come from a cache that is old because another process has written.
func TestRefusalsAndNoChangesAreDecidedOnFreshState(t *testing.T) {
	url := services.Postgres(t)
	s := openPostgres(t, url)
	a, b := start(t, s, eventstore.ExecutorOptions{}), start(t, openPostgres(t, url), eventstore.ExecutorOptions{})
	user := newUser(t, a, "ann", domain.Limits{MaxMappings: limit(0)})
	client := newClient(t, a, user)
	refuse(t, b, submission(mapping(id(t, b, domain.SequenceMapping), user, client, 1)), domain.CodeQuotaMappings)
	submit(t, a, submission(domain.SetQuota{ID: user}))
	m := submit(t, b, submission(mapping(id(t, b, domain.SequenceMapping), user, client, 1))).Subject.Number()

	submit(t, a, submission(domain.SetMappingEnabled{ID: m, Enabled: false}))
	r := submit(t, b, submission(domain.SetMappingEnabled{ID: m, Enabled: true})) // in b's cache it is still enabled
	if len(r.Records) == 0 || r.State.(*domain.Mapping).Disabled {
		t.Fatalf("enabling what another process disabled gave %+v", r)
	}
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r = submit(t, a, submission(domain.SetMappingEnabled{ID: m, Enabled: true})) // in a's cache it is still disabled, but b has enabled it
	if len(r.Records) != 0 || r.Position < head.Position || r.State.(*domain.Mapping).Disabled {
		t.Fatalf("enabling what is enabled gave %+v, want no records and a position from %d", r, head.Position)
	}
	submit(t, a, submission(domain.DeleteUser{ID: user}))
	refuse(t, b, submission(domain.DeleteMapping{ID: m}), domain.CodeMappingNotFound)
}

func TestReceiptIsTheFoldOfTheLog(t *testing.T) {
	eachStore(t, func(t *testing.T, s eventstore.Store) {
		e := start(t, s, eventstore.ExecutorOptions{})
		user := newUser(t, e, "ann", domain.Limits{})
		client := newClient(t, e, user)
		m := id(t, e, domain.SequenceMapping)
		for _, c := range []domain.Command{
			mapping(m, user, client, 1),
			domain.ChangeMapping{ID: m, Patch: domain.Patch{"target_port": []byte("8080"), "name": []byte(`"Zoë"`)}},
			domain.SetMappingEnabled{ID: m},
			domain.RotateCredential{ID: client, PublicKey: bytes.Repeat([]byte{1}, 32)},
			domain.SetQuota{ID: user, Limits: domain.Limits{MaxClients: limit(3)}},
			domain.DeleteMapping{ID: m},
			domain.DeleteUser{ID: user},
		} {
			r := submit(t, e, submission(c))
			state, version := fold(t, s, c.Subject())
			if r.Subject != c.Subject() || r.Version != version || !reflect.DeepEqual(r.State, state) {
				t.Errorf("%s: receipt\n%+v of version %d\nlog\n%+v of version %d", c.CommandName(), r.State, r.Version, state, version)
			}
			records, err := s.ReadAll(t.Context(), r.Position-domain.Position(len(r.Records)), 100)
			if err != nil || len(records) == 0 || !sameRecords(records, r.Records) {
				t.Errorf("%s: receipt has records\n%+v\nlog\n%+v, %v", c.CommandName(), r.Records, records, err)
			}
			if len(records) > 0 && records[0].Meta.Command != c.CommandName() {
				t.Errorf("%s: recorded as %+v", c.CommandName(), records[0])
			}
		}
	})
}

func sameRecords(a, b []domain.Record) bool {
	return slices.EqualFunc(a, b, func(a, b domain.Record) bool { return reflect.DeepEqual(a, b) })
}

func TestRetryGetsTheFirstReceipt(t *testing.T) {
	eachStore(t, func(t *testing.T, s eventstore.Store) {
		e := start(t, s, eventstore.ExecutorOptions{})
		user := newUser(t, e, "ann", domain.Limits{MaxMappings: limit(1)})
		client := newClient(t, e, user)
		first := submit(t, e, keyed(mapping(id(t, e, domain.SequenceMapping), user, client, 1), "create"))
		m := first.Subject.Number()
		submit(t, e, submission(domain.ChangeMapping{ID: m, Patch: domain.Patch{"target_port": []byte("81")}}))
		// The retry draws another id and would be refused now: the quota is full.
		retry := submit(t, e, keyed(mapping(id(t, e, domain.SequenceMapping), user, client, 1), "create"))
		if !retry.Duplicate || retry.Subject != first.Subject || retry.Position != first.Position || retry.Version != first.Version ||
			!reflect.DeepEqual(retry.State, first.State) || !sameRecords(retry.Records, first.Records) {
			t.Fatalf("the retry got\n%+v\nthe first\n%+v", retry, first)
		}
		// An If-Match that the command's own first attempt made wrong.
		version := domain.Version(2)
		disable := keyed(domain.SetMappingEnabled{ID: m}, "disable")
		disable.Expect = &version
		first, retry = submit(t, e, disable), submit(t, e, disable)
		if first.Duplicate || !retry.Duplicate || retry.Position != first.Position || !reflect.DeepEqual(retry.State, first.State) {
			t.Fatalf("the retry got\n%+v\nthe first\n%+v", retry, first)
		}
		other := keyed(domain.SetMappingEnabled{ID: m, Enabled: true}, "disable")
		other.Hash[0]++
		refuse(t, e, other, domain.CodeIdempotencyMismatch)
		// A command whose subject is not in its first record.
		gone := keyed(domain.DeleteUser{ID: user}, "delete")
		first, retry = submit(t, e, gone), submit(t, e, gone)
		if !retry.Duplicate || retry.Subject != domain.UserStream(user) || !reflect.DeepEqual(retry.State, first.State) {
			t.Fatalf("the retry got\n%+v\nthe first\n%+v", retry, first)
		}
		// Retries in one batch.
		n := id(t, e, domain.SequenceUser)
		receipts := make([]domain.Receipt, 8)
		var wg sync.WaitGroup
		for i := range receipts {
			wg.Go(func() {
				r, err := e.Submit(t.Context(), keyed(domain.CreateUser{ID: n + int64(i), Username: "bob", Email: "bob@example.org"}, "bob"))
				if err != nil {
					t.Errorf("retry %d: %v", i, err)
				}
				receipts[i] = r
			})
		}
		wg.Wait()
		written := 0
		for _, r := range receipts {
			if !r.Duplicate {
				written++
			}
			if r.Position != receipts[0].Position || r.Subject != receipts[0].Subject {
				t.Errorf("two receipts for one key: %+v and %+v", r, receipts[0])
			}
		}
		if written != 1 {
			t.Errorf("%d of 8 were executed, want 1", written)
		}
	})
}

func TestIfMatchAndClaims(t *testing.T) {
	eachStore(t, func(t *testing.T, s eventstore.Store) {
		e := start(t, s, eventstore.ExecutorOptions{})
		ann := newUser(t, e, "ann", domain.Limits{})
		bob := newUser(t, e, "bob", domain.Limits{})
		name := "ANN"
		refuse(t, e, submission(domain.ChangeUser{ID: bob, Username: &name}), domain.CodeUsernameTaken)
		rename := submission(domain.ChangeUser{ID: ann, Username: new("eve")})
		rename.Expect = new(domain.Version(2))
		refuse(t, e, rename, domain.CodeVersionConflict)
		rename.Expect = new(domain.Version(1))
		submit(t, e, rename)
		submit(t, e, submission(domain.ChangeUser{ID: bob, Username: &name}))
		refuse(t, e, submission(domain.CreateUser{ID: ann, Username: "x", Email: "x@example.org"}), domain.CodeIDTaken)
		refuse(t, e, submission(domain.DeleteClient{ID: 1}), domain.CodeClientNotFound)
	})
}

func TestCacheSmallerThanACommand(t *testing.T) {
	s := openSQLite(t)
	e := start(t, s, eventstore.ExecutorOptions{CacheStreams: 1})
	user := newUser(t, e, "ann", domain.Limits{MaxMappings: limit(10)})
	client := newClient(t, e, user)
	if created, refused := createMappings(t, 30, user, client, e); created != 10 || refused != 20 {
		t.Fatalf("%d created, %d refused; want 10 and 20", created, refused)
	}
	submit(t, e, submission(domain.DeleteUser{ID: user})) // this reads 13 streams
}

// gate lets appends through one by one and can fail them.
type gate struct {
	eventstore.Store
	batches chan []eventstore.Append // an append that arrived
	open    chan error               // the outcome of the append: nil = the store's own result
}

func newGate(s eventstore.Store) *gate {
	return &gate{Store: s, batches: make(chan []eventstore.Append), open: make(chan error)}
}

func (g *gate) AppendBatch(ctx context.Context, batch []eventstore.Append) ([]eventstore.Result, error) {
	g.batches <- batch
	if err := <-g.open; err != nil {
		return nil, err
	}
	return g.Store.AppendBatch(ctx, batch)
}

func (g *gate) pass(t *testing.T, err error) (size int) {
	t.Helper()
	select {
	case batch := <-g.batches:
		g.open <- err
		return len(batch)
	case <-time.After(20 * time.Second):
		t.Fatal("no append arrived")
		return 0
	}
}

func TestUnavailableLogIsSaidAndForgotten(t *testing.T) {
	g := newGate(eventstoretest.NewMemory())
	e := start(t, g, eventstore.ExecutorOptions{})
	create := submission(domain.CreateUser{ID: id(t, e, domain.SequenceUser), Username: "ann", Email: "ann@example.org"})
	errs := make(chan error)
	try := func() {
		_, err := e.Submit(t.Context(), create)
		errs <- err
	}
	go try()
	down := errors.New("connection refused")
	g.pass(t, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, down))
	if err := <-errs; domain.CodeOf(err) != domain.CodeStoreUnavailable || !errors.Is(err, down) {
		t.Fatalf("with the log down: %v", err)
	}
	go try()
	g.pass(t, nil)
	if err := <-errs; err != nil { // a plan that failed is not remembered
		t.Fatal(err)
	}
}

func TestCancelledCallerIsLetGoAtOnce(t *testing.T) {
	g := newGate(eventstoretest.NewMemory())
	e := start(t, g, eventstore.ExecutorOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	user := func(n int64, name string) domain.Submission {
		return submission(domain.CreateUser{ID: n, Username: name, Email: name + "@example.org"})
	}
	go func() { _, err := e.Submit(ctx, user(1, "ann")); errs <- err }()
	batch := <-g.batches // the append is under way
	queued := make(chan error)
	go func() { _, err := e.Submit(ctx, user(2, "bob")); queued <- err }()
	cancel()
	for _, c := range []chan error{errs, queued} {
		if err := <-c; !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
	}
	g.open <- nil
	if len(batch) != 1 {
		t.Fatalf("the first append has %d commands", len(batch))
	}
	// The command under way was executed, the command in the queue was not.
	go func() { _, err := e.Submit(t.Context(), user(3, "eve")); errs <- err }()
	g.pass(t, nil)
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	_, ann := fold(t, g, "user-1")
	_, bob := fold(t, g, "user-2")
	if ann != 1 || bob != 0 {
		t.Fatalf("ann has %d records and bob %d, want 1 and 0", ann, bob)
	}
}

// A refusal that was decided on a plan counts only if the plan succeeds.
func TestRefusalIsDecidedAgainWhenThePlanFails(t *testing.T) {
	store := eventstoretest.NewMemory()
	setup := eventstore.NewExecutor(store, eventstore.ExecutorOptions{})
	sctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- setup.Run(sctx) }()
	user := newUser(t, setup, "ann", domain.Limits{MaxMappings: limit(1)})
	client := newClient(t, setup, user)
	other := newUser(t, setup, "bob", domain.Limits{})
	stop()
	<-ended

	g := newGate(store)
	e := start(t, g, eventstore.ExecutorOptions{})
	errs := [3]chan error{make(chan error, 1), make(chan error, 1), make(chan error, 1)}
	go func() { _, err := e.Submit(t.Context(), submission(domain.SetUserEnabled{ID: other})); errs[0] <- err }()
	<-g.batches // the decider is busy; the next two come into one round
	for i, port := range []int{1, 2} {
		go func() {
			_, err := e.Submit(t.Context(), submission(mapping(int64(1001+i), user, client, port)))
			errs[i+1] <- err
		}()
	}
	// Another process uses the first caller's stream, so the first caller's plan fails.
	g.open <- nil
	if err := <-errs[0]; err != nil {
		t.Fatal(err)
	}
	created := 0
	for decided := 0; decided < 2; {
		select {
		case batch := <-g.batches:
			if created == 0 && len(batch) == 1 {
				quota, _ := fold(t, store, domain.QuotaStream(user))
				if len(quota.(*domain.Quota).Mappings) == 0 {
					created++
					moveStream(t, store, domain.UserStream(user))
				}
			}
			g.open <- nil
		case err := <-errs[1]:
			decided += checkOutcome(t, err)
		case err := <-errs[2]:
			decided += checkOutcome(t, err)
		case <-time.After(20 * time.Second):
			t.Fatal("no answer")
		}
	}
	quota, _ := fold(t, store, domain.QuotaStream(user))
	if n := len(quota.(*domain.Quota).Mappings); n != 1 {
		t.Fatalf("%d mappings, want exactly 1", n)
	}
}

func checkOutcome(t *testing.T, err error) int {
	t.Helper()
	if err != nil && domain.CodeOf(err) != domain.CodeQuotaMappings {
		t.Errorf("create: %v", err)
	}
	return 1
}

// moveStream writes a record as another process would.
func moveStream(t *testing.T, s eventstore.Store, stream domain.StreamID) {
	t.Helper()
	results, err := s.AppendBatch(t.Context(), []eventstore.Append{{
		Meta: domain.Metadata{At: time.Now()}, Streams: []eventstore.StreamAppend{{Stream: stream, Expected: eventstore.Any}},
		Events: []eventstore.NewEvent{{Name: "user_enabled", Schema: 1, Data: []byte(`{}`)}}}})
	if err != nil || results[0].Err != nil {
		t.Fatal(err, results)
	}
}

// Commands that arrive during an append are all in the next batch, in the order of
// arrival. A command with a conflict does not lose its place.
func TestBatchesAreFair(t *testing.T) {
	g := newGate(eventstoretest.NewMemory())
	e := start(t, g, eventstore.ExecutorOptions{})
	errs := make(chan error, 100)
	user := func(n int64) {
		go func() {
			_, err := e.Submit(t.Context(), submission(domain.CreateUser{ID: n, Username: fmt.Sprint("u", n), Email: fmt.Sprintf("u%d@example.org", n)}))
			errs <- err
		}()
	}
	user(1)
	if batch := <-g.batches; len(batch) != 1 {
		t.Fatalf("the first caller waited for company: %d commands", len(batch))
	}
	for n := range int64(20) {
		user(2 + n)
	}
	g.open <- nil
	// The commands that arrived during an append need at most a few appends, not one
	// each.
	appends, commands := 0, 0
	for commands < 20 {
		commands += g.pass(t, nil)
		appends++
	}
	for range 21 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if appends > 10 {
		t.Errorf("20 waiting commands took %d appends", appends)
	}
}
