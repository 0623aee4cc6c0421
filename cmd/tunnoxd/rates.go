package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/wait"
)

// sharedRates counts rates for all control planes of a cluster, in Redis. Names stand
// there blinded: they are addresses, and names of accounts.
type sharedRates struct {
	client  *redis.Client
	key     *attest.Key
	self    string
	servers atomic.Int64
	alone   prometheus.Counter
}

const (
	ratesTag     = "{tunnox:rates}:"
	ratesServers = ratesTag + "servers"
	// ratesBeat is how often a control plane says that it counts, and ratesSilence how
	// long one that does not say so is counted with.
	ratesBeat, ratesSilence = 5 * time.Second, 20 * time.Second
	// ratesKnown is how long it is remembered that an account was entered from an
	// address.
	ratesKnown = 30 * 24 * time.Hour
)

// startRates shares the counts of a cluster. It gives nil where nobody else counts.
func (p *process) startRates(b *backend, self string) httpapi.Rates {
	if b.redis == nil {
		return nil
	}
	r := &sharedRates{client: b.redis, key: b.record, self: self, alone: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tunnox_api_rates_alone_total", Help: "How often the count of all control planes could not be asked, so that this one gave its part of a rate for a second."})}
	p.registry.MustRegister(r.alone)
	p.run("rates", r.run)
	return r
}

// run says that this control plane counts, and finds out how many do.
func (r *sharedRates) run(ctx context.Context) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		n, err := serversScript.Run(bounded, r.client, []string{ratesServers}, r.self, ratesSilence.Milliseconds()).Int64()
		cancel()
		if err == nil { // otherwise there are as many as there were
			r.servers.Store(n)
		}
		if !wait.For(ctx, ratesBeat) {
			break
		}
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.client.ZRem(bounded, ratesServers, r.self).Err() // it is forgotten soon
	return nil
}

// serversScript: KEYS the servers by when they said that they count. ARGV this one, how
// long one is counted with. It gives how many there are.
var serversScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('ZCARD', KEYS[1])
`)

// takeScript: KEYS the bucket, which is the time at which it is full again, and the
// servers. ARGV the time
// of a token, how many are in a full bucket, how many are wanted; times in
// microseconds. It gives how many were granted, how many are left, the time until the
// bucket is full, the time until there is one, and how many servers there are.
var takeScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local interval, capacity, want = tonumber(ARGV[1]), ARGV[1] * ARGV[2], tonumber(ARGV[3])
local full = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or now), now), now + capacity)
local granted = math.min(want, math.floor((capacity - (full - now)) / interval))
if granted > 0 then
  full = full + granted * interval
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
end
return {granted, math.floor((capacity - (full - now)) / interval), full - now, math.max(0, full + interval - now - capacity), redis.call('ZCARD', KEYS[2])}
`)

func (r *sharedRates) name(kind, name string) string {
	return ratesTag + kind + ":" + r.key.Blind(name)
}

// Take implements [httpapi.Rates].
func (r *sharedRates) Take(ctx context.Context, rate httpapi.Rate, name string, want int) (httpapi.Taken, error) {
	n, err := takeScript.Run(ctx, r.client, []string{r.name(rate.Kind, name), ratesServers}, rate.Interval.Microseconds(), rate.Burst, want).Int64Slice()
	if err == nil && len(n) != 5 {
		err = errors.New("the script gave " + strconv.Itoa(len(n)) + " numbers")
	}
	if err != nil {
		r.alone.Inc()
		return httpapi.Taken{}, fmt.Errorf("count with the other control planes: %w", err)
	}
	r.servers.Store(n[4])
	return httpapi.Taken{Granted: int(n[0]), Left: int(n[1]), Full: time.Duration(n[2]) * time.Microsecond, Wait: time.Duration(n[3]) * time.Microsecond}, nil
}

// Fill implements [httpapi.Rates].
func (r *sharedRates) Fill(ctx context.Context, rate httpapi.Rate, name string) error {
	return r.client.Del(ctx, r.name(rate.Kind, name)).Err()
}

// Servers implements [httpapi.Rates].
func (r *sharedRates) Servers() int { return max(1, int(r.servers.Load())) }

// Know implements [httpapi.Rates].
func (r *sharedRates) Know(ctx context.Context, name string) error {
	return r.client.Set(ctx, r.name("known", name), 1, ratesKnown).Err()
}

// Known implements [httpapi.Rates].
func (r *sharedRates) Known(ctx context.Context, name string) (bool, error) {
	n, err := r.client.Exists(ctx, r.name("known", name)).Result()
	return n > 0, err
}
