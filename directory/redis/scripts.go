package redis

import (
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/directory"
)

var maxPast = strconv.Itoa(directory.MaxPast)

// A client is a hash under a key of its own:
//
//	epoch     the highest there ever was
//	instance  that serves it
//	past      fenced instances, one a line, the last one first
//	seen      when it was last registered, renewed or ended, milliseconds
//	@NODE     its session there: when it is forgotten in milliseconds, its epoch,
//	          a letter and JSON, with spaces between
//
// The letter is h for a held session, r for a session that its own node has removed,
// and d for a session that somebody has disconnected. Ended sessions stay for the
// length of a lease, so that a late renewal does not restore them; their JSON, with the
// address of the agent, does not. The hash does not
// say whether a session is live. The lease of its node says so, and a script for a
// client cannot read the lease: all keys of a script must be on one node of a Redis
// Cluster.
//
// Times are those of the Redis server, so that nodes need not agree on a clock, unless
// ARGV[1] gives another time. Epochs and times are below 2^53, where Lua's numbers are
// exact.

const preamble = `
local function milliseconds(n) return string.format('%.0f', n) end
local now = tonumber(ARGV[1])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
`

// client needs: ARGV now, how long a session is kept, memory; further arguments begin
// at ARGV[4]. A script deletes expired fields when it reads them.
var client = preamble + `
local kept, memory = tonumber(ARGV[2]), ARGV[3]
local function load(key)
  local c = {epoch = -1, instance = '', past = '', places = {}}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local field, value = all[i], all[i + 1]
    if field == 'epoch' then c.epoch = tonumber(value)
    elseif field == 'instance' then c.instance = value
    elseif field == 'past' then c.past = value
    elseif string.sub(field, 1, 1) == '@' then
      local ends, epoch, state, text = string.match(value, '^(%d+) (%d+) (%l) (.*)$')
      if tonumber(ends) > now then
        c.places[string.sub(field, 2)] = {epoch = tonumber(epoch), state = state, text = text}
      else
        redis.call('HDEL', key, field)
      end
    end
  end
  return c
end
local function describe(place) return milliseconds(place.epoch) .. ' ' .. place.text end
local function keep(key, node, place, time)
  redis.call('HSET', key, '@' .. node, milliseconds(now + time) .. ' ' .. milliseconds(place.epoch) .. ' ' ..
    place.state .. ' ' .. place.text, 'seen', milliseconds(now))
  redis.call('PEXPIRE', key, memory)
end
local function fenced(c, instance)
  return string.find('\n' .. c.past .. '\n', '\n' .. instance .. '\n', 1, true) ~= nil
end
local function takeOver(key, c, instance, told)
  if c.epoch > 0 and c.instance ~= instance then
    for node, place in pairs(c.places) do
      if place.state == 'h' then table.insert(told, describe(place)) end
      redis.call('HDEL', key, '@' .. node)
    end
    local past, n = c.instance, 1
    for line in string.gmatch(c.past, '[^\n]+') do
      if n == ` + maxPast + ` then break end
      if line ~= instance then past, n = past .. '\n' .. line, n + 1 end
    end
    redis.call('HSET', key, 'past', past)
  end
  if c.instance ~= instance or c.epoch < 0 then redis.call('HSET', key, 'instance', instance) end
end
`

// registerScript: ARGV[4] on: session, node, instance. It gives the epoch, or -1 to a
// fenced instance. The epoch is not below the clock, so that epochs rise also over a
// flush. After the epoch come the fenced sessions: epoch, space, JSON.
var registerScript = goredis.NewScript(client + `
local key, text, node, instance = KEYS[1], ARGV[4], ARGV[5], ARGV[6]
local c = load(key)
if c.instance ~= instance and fenced(c, instance) then return {'-1'} end
local epoch = math.max(c.epoch + 1, now)
local told = {milliseconds(epoch)}
takeOver(key, c, instance, told)
redis.call('HSET', key, 'epoch', milliseconds(epoch))
keep(key, node, {epoch = epoch, state = 'h', text = text}, kept)
return told
`)

// renewScript: any number of clients, and for each of them session, node, instance and
// epoch. It gives a letter for each: h = renewed, r and d as above, f = fenced. The
// sessions that one renewal has fenced are lines after its letter.
var renewScript = goredis.NewScript(client + `
local outcomes = {}
for i, key in ipairs(KEYS) do
  local at = 4 * i
  local text, node, instance, epoch = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local c = load(key)
  local place = c.places[node]
  if (c.instance ~= instance and c.epoch > epoch) or (place and place.epoch > epoch) then
    outcomes[i] = 'f'
  elseif place and place.epoch == epoch and place.state ~= 'h' then
    outcomes[i] = place.state
  else
    local told = {'h'}
    takeOver(key, c, instance, told)
    if epoch > c.epoch then redis.call('HSET', key, 'epoch', milliseconds(epoch)) end
    keep(key, node, {epoch = epoch, state = 'h', text = text}, kept)
    outcomes[i] = table.concat(told, '\n')
  end
end
return outcomes
`)

// removeScript: ARGV[4] on: node, epoch, how long the end is remembered.
var removeScript = goredis.NewScript(client + `
local place = load(KEYS[1]).places[ARGV[4]]
if not place or place.state ~= 'h' or place.epoch ~= tonumber(ARGV[5]) then return 0 end
place.state, place.text = 'r', '{}'
keep(KEYS[1], ARGV[4], place, ARGV[6])
return 1
`)

// disconnectScript: ARGV[4]: how long the end is remembered. It gives the ended
// sessions.
var disconnectScript = goredis.NewScript(client + `
local told = {}
for node, place in pairs(load(KEYS[1]).places) do
  if place.state == 'h' then
    table.insert(told, describe(place))
    place.state, place.text = 'd', '{}'
    keep(KEYS[1], node, place, ARGV[4])
  end
end
return told
`)

// beatScript: KEYS node -> lease, notices, the time since which portions are known.
// ARGV now, node, run, TTL. A lease is the time of the last beat and the run, and the
// same two of the run before. The script gives -1 to the run before, 1 when the lease
// was live and 0 when it was not; then the notices.
var beatScript = goredis.NewScript(preamble + since + `
since(KEYS[3])
local beaten, run, pastBeaten, past = '0', '', '0', ''
local lease = redis.call('HGET', KEYS[1], ARGV[2])
if lease then beaten, run, pastBeaten, past = string.match(lease, '^(%d+) (%S*) (%d+) (%S*)$') end
if past == ARGV[3] then return {'-1'} end
local answer = {'0'}
if run == ARGV[3] then
  if tonumber(beaten) + ARGV[4] > now then answer[1] = '1' end
elseif run ~= '' then
  pastBeaten, past = beaten, run
end
redis.call('HSET', KEYS[1], ARGV[2], milliseconds(now) .. ' ' .. ARGV[3] .. ' ' .. pastBeaten .. ' ' .. past)
for _, notice in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do table.insert(answer, notice) end
redis.call('DEL', KEYS[2])
return answer
`)

// leaseScript: KEYS id -> end and owner, owner -> id, id -> record, node -> lease, and
// a hash of when the first id was leased and of who was given any free id. ARGV now,
// TTL, owner, the number the owner had (0 = none), how many ids there are, how long an
// id is kept for its owner, the prefix of the nodes' channels. It gives a number; 0 = no
// id is free.
//
// After a flush the ids of all nodes are unknown until their owners ask again, which
// takes up to a third of a TTL. A living node is still subscribed to its channel, so an
// id is not free while its channel has a subscriber. After a restart of Redis there are
// no subscribers for a moment, and a new owner may get the id of a living node. So
// an id that was given to a new owner within a TTL of the first lease of all
// is given back to an owner that says it had the id. The sessions that the new owner
// has registered under the id are fenced.
var leaseScript = goredis.NewScript(preamble + `
local ids, owners, records, ttl, owner = KEYS[1], KEYS[2], KEYS[3], ARGV[2], ARGV[3]
local born = tonumber(redis.call('HGET', KEYS[5], 'born'))
if not born or born > now then
  born = now
  redis.call('HSET', KEYS[5], 'born', milliseconds(now))
end
local settling = now - born < tonumber(ttl)
local function node(n) return string.format('node-%03d', n) end
local function lease(n)
  local value = redis.call('HGET', ids, n)
  if not value then return 0, '' end
  local ends, name = string.match(value, '^(%d+) (.*)$')
  return tonumber(ends), name
end
local function take(n)
  local _, before = lease(n)
  if before ~= owner then
    if before ~= '' then redis.call('HDEL', owners, before) end
    redis.call('HDEL', records, n) -- it was the last owner's
  end
  redis.call('HSET', ids, n, milliseconds(now + ttl) .. ' ' .. owner)
  redis.call('HSET', owners, owner, n)
  return tonumber(n)
end
local own = redis.call('HGET', owners, owner)
if own then
  local _, name = lease(own)
  if name == owner then return take(own) end
end
if ARGV[4] ~= '0' then
  local ends, other = lease(ARGV[4])
  if other == owner then return take(ARGV[4]) end -- only the list of owners is gone
  local mistaken = settling and redis.call('HGET', KEYS[5], ARGV[4]) == other
  if ends + (ends > 0 and ARGV[6] or 0) <= now or mistaken then
    if ends > now then
      local run = string.match(redis.call('HGET', KEYS[4], node(ARGV[4])) or '', '^%d+ (%S*) ')
      if run and run ~= '' then redis.call('HSET', KEYS[4], node(ARGV[4]), '0  ' .. milliseconds(now) .. ' ' .. run) end
    end
    redis.call('HDEL', KEYS[5], ARGV[4])
    return take(ARGV[4])
  end
end
local function heard(n)
  local listeners = redis.pcall('PUBSUB', 'NUMSUB', ARGV[7] .. node(n))
  return type(listeners[2]) == 'number' and listeners[2] > 0 -- a server may forbid to ask
end
local all, ends = redis.call('HGETALL', ids), {}
for i = 1, #all, 2 do ends[all[i]] = tonumber(string.match(all[i + 1], '^%d+')) end
-- The last owner may be alive and cut off: its id is for others only when there is no other.
for _, kept in ipairs({tonumber(ARGV[6]), 0}) do
  for n = 1, tonumber(ARGV[5]) do
    local free = (ends[tostring(n)] or -kept) + kept <= now
    if free and not heard(n) then
      if settling then
        redis.call('HSET', KEYS[5], n, owner)
      else
        redis.call('HDEL', KEYS[5], n)
      end
      return take(n)
    end
  end
end
return 0
`)

// announceScript: KEYS id -> end and owner, id -> record. ARGV now, TTL, owner, the
// number of the id, the record (empty = remove the record). It gives 0 when the id is
// not leased to the owner.
var announceScript = goredis.NewScript(preamble + `
local value = redis.call('HGET', KEYS[1], ARGV[4])
if not value then return 0 end
local ends, name = string.match(value, '^(%d+) (.*)$')
if tonumber(ends) <= now or name ~= ARGV[3] then return 0 end
if ARGV[5] == '' then
  redis.call('HDEL', KEYS[2], ARGV[4])
else
  redis.call('HSET', KEYS[2], ARGV[4], milliseconds(now + ARGV[2]) .. ' ' .. ARGV[5])
end
return 1
`)

// expelScript: KEYS id -> end and owner, owner -> id, id -> record, node -> lease. ARGV
// the number of the id, the id. The lease of the id ends at the last time there is, and
// the run of the node is one that another has replaced.
var expelScript = goredis.NewScript(`
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then redis.call('HDEL', KEYS[2], string.match(value, '^%d+ (.*)$')) end
redis.call('HSET', KEYS[1], ARGV[1], '9007199254740991 ')
redis.call('HDEL', KEYS[3], ARGV[1])
local run = string.match(redis.call('HGET', KEYS[4], ARGV[2]) or '', '^%d+ (%S*) ')
if run and run ~= '' then redis.call('HSET', KEYS[4], ARGV[2], '0  0 ' .. run) end
return 1
`)

// markScript: KEYS id -> record, the mark. ARGV now, the highest age of a mark. A mark
// is a hash of the records without their loads. The first caller that finds the mark
// too old makes a new one. So the records are read about once a second, however many
// callers ask, and the writers of records need not know of the mark.
var markScript = goredis.NewScript(preamble + `
local made, mark = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) (%x+)$')
if not mark or tonumber(made) > now or now - made >= tonumber(ARGV[2]) then
  local said = {}
  for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
    local ends, text = string.match(value, '^(%d+) (.-),"clients":')
    if ends and tonumber(ends) > now then table.insert(said, text) end
  end
  table.sort(said)
  mark = redis.sha1hex(table.concat(said, '\n'))
  redis.call('SET', KEYS[2], milliseconds(now) .. ' ' .. mark, 'PX', 60000)
end
return mark
`)

// markAge is how late a survey may notice a change.
const markAge = 900 * time.Millisecond
