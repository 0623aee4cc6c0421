package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/directory"
)

// since gives the time from which on all portions are known, and how long ago that is.
// The time begins again when the key is gone, and when the server is another one or was
// restarted: such a server may have lost the last second, or data that was not
// replicated yet. INFO may be forbidden; a server that does not name itself counts as
// the same one.
const since = `
local function since(key)
  local info = redis.pcall('INFO', 'server')
  local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or '-'
  local mark = redis.call('GET', key)
  local began, at = string.match(mark or '', '^(%d+) (%S+)$')
  if at ~= server or tonumber(began) > now then
    mark, began = milliseconds(now) .. ' ' .. server, now
    redis.call('SET', key, mark)
  end
  return mark, now - tonumber(began)
end
`

// sinceScript: KEYS the time. ARGV now.
var sinceScript = goredis.NewScript(preamble + since + `
local mark = since(KEYS[1])
return mark
`)

// reserveScript: KEYS node -> lease, the time since, node -> portion. ARGV now, TTL,
// settle, kept, then node, run, sequence, held, want, limit. It gives 'lease' or 'late'
// for the two errors. Otherwise it gives: what is held; 1 if that is settled; 1 if all
// nodes together hold too much; the time since; and, when less is held than was wanted,
// the other nodes that have a portion.
//
// A portion is run, sequence and number. An empty portion stays for a minute, so that a
// delayed call is recognised as late.
var reserveScript = goredis.NewScript(preamble + since + `
local ttl, settle, kept = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local node, run, sequence = ARGV[5], ARGV[6], tonumber(ARGV[7])
local held, want, limit = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local function leads(node, run)
  local beaten, present = string.match(redis.call('HGET', KEYS[1], node) or '', '^(%d+) (%S*) ')
  return present == run and tonumber(beaten) + ttl > now
end
local mark, age = since(KEYS[2])
if not leads(node, run) then return {'lease'} end
local others, answer = 0, {'', '1', '0', mark}
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  local theirs, number, has = string.match(all[i + 1], '^(%S*) (%d+) (%d+)$')
  if all[i] == node then
    if theirs == run and tonumber(number) > sequence then return {'late'} end
  elseif leads(all[i], theirs) then
    others = others + has
    if has ~= '0' then table.insert(answer, all[i]) end
  else
    redis.call('HDEL', KEYS[3], all[i])
  end
end
local gets = held
if age >= settle then gets = math.max(held, math.min(want, limit - others)) else answer[2] = '0' end
redis.call('HSET', KEYS[3], node, run .. ' ' .. milliseconds(sequence) .. ' ' .. milliseconds(gets))
redis.call('PEXPIRE', KEYS[3], others + gets > 0 and kept or 60000)
answer[1] = milliseconds(gets)
if others + gets > limit then answer[3] = '1' end
if gets >= want then return {answer[1], answer[2], answer[3], mark} end
return answer
`)

// Reserve implements directory.Portions.
func (d *Directory) Reserve(ctx context.Context, s directory.Portion) (g directory.Granted, err error) {
	mapping := strconv.FormatInt(s.Mapping, 10)
	answer, err := reserveScript.Run(ctx, d.client, []string{nodeLeases, nodeSince, nodePortions + mapping},
		d.clock(), directory.TTL.Milliseconds(), directory.Settle.Milliseconds(), directory.PortionKept.Milliseconds(),
		s.Node, s.Run, s.Sequence, s.Held, s.Want, s.Limit).StringSlice()
	if err == nil && len(answer) == 1 {
		if answer[0] == "lease" {
			return g, directory.ErrNoLease
		}
		return g, directory.ErrLate
	}
	if err == nil && len(answer) < 4 {
		err = errors.New("too short an answer")
	}
	if err == nil {
		g.Held, err = strconv.ParseInt(answer[0], 10, 64)
	}
	if err != nil {
		return g, fmt.Errorf("directory: reserve connections of mapping %d: %w", s.Mapping, err)
	}
	g.Settled, g.Over, g.Since = answer[1] == "1", answer[2] == "1", answer[3]
	if others := answer[4:]; len(others) > 0 {
		pipe := d.client.Pipeline()
		for _, node := range others {
			pipe.Publish(ctx, d.channel+node, string(directory.Wanted)+" "+mapping)
		}
		// The portion is granted already. If the other nodes do not get this notice,
		// only time is lost.
		_, _ = pipe.Exec(ctx)
	}
	return g, nil
}

// Since implements directory.Portions.
func (d *Directory) Since(ctx context.Context) (string, error) {
	mark, err := sinceScript.Run(ctx, d.client, []string{nodeSince}, d.clock()).Text()
	if err != nil {
		return "", fmt.Errorf("directory: read the time since which portions are known: %w", err)
	}
	return mark, nil
}
