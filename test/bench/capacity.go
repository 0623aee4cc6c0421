package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	brokerredis "github.com/tunnox-net/tunnox/broker/redis"
	"github.com/tunnox-net/tunnox/directory"
	directoryredis "github.com/tunnox-net/tunnox/directory/redis"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

// The numbers over which the costs of a unit are measured.
const (
	capacityUsers    = 1_000
	capacityEach     = 10 // clients and mappings of a user
	capacitySessions = 10_000
)

// recordKey signs what the measured control planes write to Redis.
var recordKey = func() *attest.Key {
	k, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		panic(err)
	}
	return k
}()

// measureCapacity measures the cost of one user, client, mapping, record and session in
// Postgres and Redis. From these figures docs/operations.md calculates clusters that do
// not fit on one machine.
func measureCapacity(l *lab, _ options, t *table) {
	l.part(func(l *lab) {
		url := services.StartPostgres(l, services.PostgresOptions{}).Database(l)
		client := redisClient(l)
		log := openStore(l, url)
		u := &unitCosts{lab: l, url: url, redis: client, executor: newExecutor(l, log), log: log, rows: projectionsredis.New(client, recordKey.Trust(), nil)}
		l.Cleanup(func() { _ = u.rows.Close() })

		t.section("what one costs", "Postgres, bytes", "records", "Redis, bytes", "Redis, keys")
		u.measure(t, "read models and log, each user", capacityUsers, u.makeUsers)
		u.measure(t, "each client", capacityUsers*capacityEach, u.makeClients)
		u.measure(t, "each mapping", capacityUsers*capacityEach, u.makeMappings)
		t.section("in motion", "bytes", "us of Redis")
		u.feed(t)
		u.sessions(t)
	})
}

func redisClient(l *lab) *redis.Client {
	options, err := redis.ParseURL(services.StartRedis(l).URL())
	if err != nil {
		l.Fatal(err)
	}
	client := redis.NewClient(options)
	l.Cleanup(func() { _ = client.Close() })
	return client
}

type unitCosts struct {
	*lab
	url      string
	redis    *redis.Client
	executor *executor
	log      eventstore.Store
	rows     *projectionsredis.Store
	users    []int64
	clients  [][]int64 // by user
}

// measure measures the growth by n commands, for one of them.
func (u *unitCosts) measure(t *table, what string, n int, do func()) {
	u.project()
	disk, records, memory, keys := u.disk(), u.head(), u.info("memory", "used_memory"), u.keys()
	do()
	u.project()
	each := func(after, before float64) figure { return figure((after - before) / float64(n)) }
	t.add(row{what: what, figures: []figure{each(u.disk(), disk), each(u.head(), records),
		each(u.info("memory", "used_memory"), memory), each(u.keys(), keys)}})
}

func (u *unitCosts) makeUsers() {
	u.users = u.draw(domain.SequenceUser, capacityUsers)
	u.all(capacityUsers, func(i int) error {
		name := fmt.Sprintf("a-user-of-the-bench-%d", i)
		return u.executor.submit(domain.CreateUser{ID: u.users[i], Username: name, Email: name + "@example.org"})
	})
}

func (u *unitCosts) makeClients() {
	ids := u.draw(domain.SequenceClient, capacityUsers*capacityEach)
	for i := range capacityUsers {
		u.clients = append(u.clients, ids[i*capacityEach:(i+1)*capacityEach])
	}
	u.all(len(ids), func(i int) error {
		return u.executor.submit(domain.CreateClient{ID: ids[i], UserID: u.users[i/capacityEach], Name: "a client of the bench", PublicKey: u.executor.key})
	})
}

func (u *unitCosts) makeMappings() {
	ids := u.draw(domain.SequenceMapping, capacityUsers*capacityEach)
	u.all(len(ids), func(i int) error {
		owner, k := i/capacityEach, i%capacityEach
		return u.executor.submit(domain.CreateMapping{ID: ids[i], UserID: u.users[owner], SourceClientID: u.clients[owner][k],
			TargetClientID: u.clients[owner][(k+1)%capacityEach], Protocol: domain.ProtocolTCP,
			Parts: domain.Parts{Origin: domain.Origin{LocalPort: 5432}, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 5432}}})
	})
}

func (u *unitCosts) draw(s domain.Sequence, n int) []int64 {
	ids := make([]int64, n)
	for i := range ids {
		id, err := u.executor.NextID(context.Background(), s)
		if err != nil {
			u.Fatal(err)
		}
		ids[i] = id
	}
	return ids
}

// all does n things, as many at a time as there are callers.
func (u *unitCosts) all(n int, do func(i int) error) {
	failed := make(chan error, manyCallers)
	for caller := range manyCallers {
		go func() {
			var err error
			for i := caller; i < n && err == nil; i += manyCallers {
				err = do(i)
			}
			failed <- err
		}()
	}
	var first error
	for range manyCallers {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		u.Fatal(first)
	}
}

// project brings the read models to the end of the log.
func (u *unitCosts) project() { replayTo(u.lab, u.log, u.rows) }

func replayTo(l *lab, log projections.Log, store projections.Store) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	projector := projections.NewProjector(log, store, projections.Options{})
	done := make(chan error, 1)
	go func() { done <- projector.Run(ctx) }()
	err := projector.Ready(ctx)
	cancel()
	if runErr := <-done; err != nil || runErr != nil {
		l.Fatalf("project: %v, %v", err, runErr)
	}
}

func (u *unitCosts) head() float64 {
	head, err := u.log.Head(context.Background())
	if err != nil {
		u.Fatal(err)
	}
	return float64(head.Position)
}

// disk gives the size of all our tables with their indexes, without the space that a
// vacuum would free.
func (u *unitCosts) disk() float64 {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, u.url)
	if err != nil {
		u.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "VACUUM FULL es.streams, es.head"); err != nil {
		u.Fatal(err)
	}
	var n int64
	err = conn.QueryRow(ctx, `SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
		WHERE s.nspname = 'es' AND c.relkind = 'r'`).Scan(&n)
	if err != nil {
		u.Fatal(err)
	}
	return float64(n)
}

func (u *unitCosts) keys() float64 {
	n, err := u.redis.DBSize(context.Background()).Result()
	if err != nil {
		u.Fatal(err)
	}
	return float64(n)
}

// info reads one number of Redis' INFO.
func (u *unitCosts) info(section, name string) float64 {
	text, err := u.redis.Info(context.Background(), section).Result()
	if err != nil {
		u.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				u.Fatal(err)
			}
			return n
		}
	}
	u.Fatalf("redis says no %s", name)
	return 0
}

// busy gives how long Redis has worked on commands, in microseconds.
func (u *unitCosts) busy() (us float64) {
	text, err := u.redis.Info(context.Background(), "commandstats").Result()
	if err != nil {
		u.Fatal(err)
	}
	for line := range strings.Lines(text) {
		name, stats, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "cmdstat_info" || name == "cmdstat_dbsize" {
			continue
		}
		for pair := range strings.SplitSeq(stats, ",") {
			if value, ok := strings.CutPrefix(pair, "usec="); ok {
				n, err := strconv.ParseFloat(value, 64)
				if err != nil {
					u.Fatal(err)
				}
				us += n
			}
		}
	}
	return us
}

// feed publishes the newest records of the log as the relay does.
func (u *unitCosts) feed(t *table) {
	ctx := context.Background()
	const n = 5_000
	publisher := brokerredis.NewPublisher(u.redis, brokerredis.Options{Trust: recordKey.Trust()})
	after := domain.Position(u.head()) - n
	memory, busy := u.info("memory", "used_memory"), u.busy()
	for at := (domain.Place{Position: after}); at.Position < after+n; {
		records, err := u.log.ReadAll(ctx, at.Position, 500)
		if err != nil {
			u.Fatal(err)
		}
		if err := publisher.Publish(ctx, at, records); err != nil {
			u.Fatal(err)
		}
		at = domain.PlaceOf(records[len(records)-1])
	}
	t.add(row{what: "a record on the feed, kept by Redis", figures: []figure{figure((u.info("memory", "used_memory") - memory) / n), figure((u.busy() - busy) / n)}})
	sent := u.info("stats", "total_net_output_bytes")
	follower := u.follow(after, n)
	t.add(row{what: "a record on the feed, read by one forwarder", figures: []figure{figure((u.info("stats", "total_net_output_bytes") - sent) / n), figure(follower / n)}})
}

// follow reads n records after after and gives how long Redis worked on it.
func (u *unitCosts) follow(after domain.Position, n int) (us float64) {
	busy := u.busy()
	follower := brokerredis.NewFollower(u.redis.Options(), brokerredis.Options{Trust: recordKey.Trust()}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := follower.Follow(ctx, after)
	if err != nil {
		u.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for got := 0; got < n; {
		entry, err := s.Next(ctx)
		if err != nil {
			u.Fatal(err)
		}
		if entry.Record != nil {
			got++
		}
	}
	return u.busy() - busy
}

// sessions registers and renews sessions as forwarders do.
func (u *unitCosts) sessions(t *table) {
	ctx := context.Background()
	dir := directoryredis.New(u.redis, nil)
	const nodes, run = 10, "run-of-the-bench"
	beat := func() {
		for node := range nodes {
			if _, err := dir.Beat(ctx, directory.NodeID(1+node), run); err != nil {
				u.Fatal(err)
			}
		}
	}
	beat()
	memory, keys, busy := u.info("memory", "used_memory"), u.keys(), u.busy()
	all := make([]directory.Session, capacitySessions)
	u.all(len(all), func(i int) error {
		s := directory.Session{ClientID: domain.FirstClientID + int64(i), Node: directory.NodeID(1 + i%nodes), Run: run, Session: fmt.Sprintf("session-%08d", i),
			Instance: fmt.Sprintf("instance-%08d", i), Version: "v1.0.0", Address: "198.51.100.7:40000", Since: time.Now()}
		epoch, err := dir.Register(ctx, s)
		s.Epoch = epoch
		all[i] = s
		return err
	})
	t.add(row{what: "a session in the directory: register", figures: []figure{figure((u.info("memory", "used_memory") - memory) / capacitySessions), figure((u.busy() - busy) / capacitySessions)}})
	t.add(row{what: "keys of a session", figures: []figure{figure((u.keys() - keys) / capacitySessions)}})
	busy = u.busy()
	received := u.info("stats", "total_net_input_bytes")
	for node := range nodes {
		var held []directory.Session
		for i := node; i < len(all); i += nodes {
			held = append(held, all[i])
		}
		if ended, err := dir.Renew(ctx, held); err != nil || len(ended) > 0 {
			u.Fatalf("renew: %v, %d ended", err, len(ended))
		}
	}
	t.add(row{what: "a session in the directory: renew, every 10 min", figures: []figure{figure((u.info("stats", "total_net_input_bytes") - received) / capacitySessions), figure((u.busy() - busy) / capacitySessions)}})
	busy, received = u.busy(), u.info("stats", "total_net_input_bytes")
	const beats = 100
	for range beats {
		beat()
	}
	t.add(row{what: "a node's beat, every 5 s", figures: []figure{figure((u.info("stats", "total_net_input_bytes") - received) / (beats * nodes)), figure((u.busy() - busy) / (beats * nodes))}})
}
