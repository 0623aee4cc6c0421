package redis

import goredis "github.com/redis/go-redis/v9"

// A client is a hash under a key of its own:
//
//	epoch    of the newest session there ever was
//	session  JSON, '' when it was removed
//	node     that holds it
//	expires  the end of its lease, milliseconds
//	seen     when it was last registered, renewed or removed, milliseconds
//
// Times are those of the Redis server, so that nodes need not agree on a clock,
// unless ARGV[1] says another. Epochs and times are below 2^53, where Lua's
// numbers are exact.

const preamble = `
local function milliseconds(n) return string.format('%.0f', n) end
local now = tonumber(ARGV[1])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
`

// client needs: ARGV now, TTL, memory, channel prefix.
const client = preamble + `
local key, ttl, memory, channel = KEYS[1], ARGV[2], ARGV[3], ARGV[4]
local held = redis.call('HMGET', key, 'epoch', 'session', 'node', 'expires')
local current = tonumber(held[1] or '-1')
local function hold(epoch, session, node)
  if held[2] and held[2] ~= '' and tonumber(held[4]) > now and current ~= epoch then
    redis.call('PUBLISH', channel .. held[3], held[1] .. ' ' .. held[2])
  end
  redis.call('HSET', key, 'epoch', milliseconds(epoch), 'session', session, 'node', node,
    'expires', milliseconds(now + ttl), 'seen', milliseconds(now))
  redis.call('PEXPIRE', key, memory)
end
`

// registerScript: then session, node. Gives the epoch, which is not below the
// clock, so that epochs rise also over a flush.
var registerScript = goredis.NewScript(client + `
local epoch = math.max(current + 1, now)
hold(epoch, ARGV[5], ARGV[6])
return milliseconds(epoch)
`)

// renewScript: then session, node, epoch. Gives 0 when fenced.
var renewScript = goredis.NewScript(client + `
local epoch = tonumber(ARGV[7])
if current > epoch then return 0 end
if current == epoch and held[2] == '' then return 1 end
hold(epoch, ARGV[5], ARGV[6])
return 1
`)

// removeScript: then epoch.
var removeScript = goredis.NewScript(client + `
if current ~= tonumber(ARGV[5]) or held[2] == '' then return 0 end
redis.call('HSET', key, 'session', '', 'seen', milliseconds(now))
redis.call('PEXPIRE', key, memory)
return 1
`)

// leaseScript: KEYS id -> end and owner, owner -> id, id -> record. ARGV now, TTL, owner, the
// number the owner had (0 = none), how many there are. Gives a number, 0 = none
// is free.
var leaseScript = goredis.NewScript(preamble + `
local ids, owners, records, ttl, owner = KEYS[1], KEYS[2], KEYS[3], ARGV[2], ARGV[3]
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
if ARGV[4] ~= '0' and lease(ARGV[4]) <= now then return take(ARGV[4]) end
local all, ends = redis.call('HGETALL', ids), {}
for i = 1, #all, 2 do ends[all[i]] = tonumber(string.match(all[i + 1], '^%d+')) end
for n = 1, tonumber(ARGV[5]) do
  if (ends[tostring(n)] or 0) <= now then return take(n) end
end
return 0
`)

// announceScript: KEYS id -> end and owner, id -> record. ARGV now, TTL, owner,
// the number of the id, the record (empty = none any more). Gives 0 when the id is
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
