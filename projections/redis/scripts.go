package redis

import (
	goredis "github.com/redis/go-redis/v9"
)

// All keys share one hash tag, and so one slot of a Redis Cluster, because a
// script decides by the pointer and writes rows in the same step:
//
//	{rm1}:active          the version that is read
//	{rm1}:number          counts versions
//	{rm1}:builds          versions that are not read -> when they were last written
//	{rm1}:V:meta          position and event id of version V's checkpoint, and its proof
//	{rm1}:V:KIND          row id -> what is kept of it (kept.go)
//	{rm1}:V:index:NAME    the ids of an index, by id
//	{rm1}:V:full          the keys above that are not empty: KIND or index:NAME
//
// Positions and ids travel as decimal strings and are compared as strings: Lua's
// numbers are doubles.

// preamble gives the version's key prefix, or nil when nothing is read.
const preamble = `
local tag, version = KEYS[1], ARGV[1]
if version == '' then version = redis.call('GET', tag .. ':active') end
local prefix = version and (tag .. ':' .. version .. ':')
-- torn tells that the names of the full keys are gone or are not all: their number is
-- beside the checkpoint. A write after that would begin a new list with its own names only.
local function torn()
  local full = redis.call('HGET', prefix .. 'meta', 'full')
  return full and tonumber(full) ~= redis.call('HLEN', prefix .. 'full')
end
-- lost tells that a key which should have something in it is gone: Redis has evicted it,
-- or somebody deleted it. The checkpoint goes too, so that all is built anew, and nothing
-- is shown or written without what is gone.
local function lost(name)
  if redis.call('EXISTS', prefix .. name) == 1 then return false end
  local full = redis.call('HGET', prefix .. 'meta', 'full')
  if not full or full == '0' then return false end
  if not torn() and not redis.call('HGET', prefix .. 'full', name) then return false end
  redis.pcall('DEL', prefix .. 'meta') -- who only reads may not, and leaves it to others
  return true
end
`

// getScript: ARGV version, then kind and id of each row. Gives the version, its
// checkpoint and the proof of that, then what is kept of the rows; or nothing when
// nothing is read.
var getScript = goredis.NewScript(preamble + `
if not prefix then return {} end
local meta = redis.call('HMGET', prefix .. 'meta', 'position', 'event_id', 'proof')
if not meta[1] then return {} end
local out = {version, meta[1], meta[2], meta[3] or ''}
for i = 2, #ARGV, 2 do
  local value = redis.call('HGET', prefix .. ARGV[i], ARGV[i + 1])
  if not value and lost(ARGV[i]) then return {} end
  out[#out + 1] = value
end
return out
`)

// listScript: ARGV version, index, after, limit. Gives ids behind a "1", or
// nothing when nothing is read.
var listScript = goredis.NewScript(preamble + `
if not prefix or redis.call('EXISTS', prefix .. 'meta') == 0 then return {} end
local ids = redis.call('ZRANGE', prefix .. 'index:' .. ARGV[2], '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4])
if #ids == 0 and lost('index:' .. ARGV[2]) then return {} end
table.insert(ids, 1, '1')
return ids
`)

// applyScript: ARGV version, position and event id of From and of To, the proof of To, then four
// lists, each behind its length: put (kind, id, value), delete (kind, id), add
// and remove (index, id). Gives 1, or 0 when fenced. A build that is written to
// is marked as alive.
var applyScript = goredis.NewScript(preamble + `
if not prefix then return 0 end
local meta = redis.call('HMGET', prefix .. 'meta', 'position', 'event_id')
if meta[1] ~= ARGV[2] or meta[2] ~= ARGV[3] then return 0 end
if torn() then
  redis.call('DEL', prefix .. 'meta')
  return 0
end
local i = 7
local function each(width, fn)
  local n = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, n do
    fn(i)
    i = i + width
  end
end
local first, touched = i, {}
each(3, function(a) touched[ARGV[a]] = true end)
each(2, function(a) touched[ARGV[a]] = true end)
each(2, function(a) touched['index:' .. ARGV[a]] = true end)
each(2, function(a) touched['index:' .. ARGV[a]] = true end)
for name in pairs(touched) do
  if lost(name) then return 0 end
end
i = first
each(3, function(a) redis.call('HSET', prefix .. ARGV[a], ARGV[a + 1], ARGV[a + 2]) end)
each(2, function(a) redis.call('HDEL', prefix .. ARGV[a], ARGV[a + 1]) end)
each(2, function(a) redis.call('ZADD', prefix .. 'index:' .. ARGV[a], ARGV[a + 1], ARGV[a + 1]) end)
each(2, function(a) redis.call('ZREM', prefix .. 'index:' .. ARGV[a], ARGV[a + 1]) end)
for name in pairs(touched) do
  if redis.call('EXISTS', prefix .. name) == 1 then
    redis.call('HSET', prefix .. 'full', name, 1)
  else
    redis.call('HDEL', prefix .. 'full', name)
  end
end
redis.call('HSET', prefix .. 'meta', 'position', ARGV[4], 'event_id', ARGV[5], 'proof', ARGV[6],
  'full', redis.call('HLEN', prefix .. 'full'))
if ARGV[1] ~= '' then
  redis.call('ZADD', tag .. ':builds', 'XX', redis.call('TIME')[1], version)
end
return 1
`)

// beginScript: ARGV a random suffix and the seconds after which a silent build
// is given up. Gives the new version, the version that is read (” = none), and
// the versions to drop.
var beginScript = goredis.NewScript(`
local tag = KEYS[1]
local now = tonumber(redis.call('TIME')[1])
local version = redis.call('INCR', tag .. ':number') .. '-' .. ARGV[1]
local out = {version, redis.call('GET', tag .. ':active') or ''}
for _, old in ipairs(redis.call('ZRANGE', tag .. ':builds', '-inf', now - ARGV[2], 'BYSCORE')) do
  out[#out + 1] = old
end
redis.call('ZADD', tag .. ':builds', now, version)
redis.call('HSET', tag .. ':' .. version .. ':meta', 'position', '0', 'event_id', '')
return out
`)

// switchScript: ARGV version, the version that was read at Begin (” = none), 1
// when that one is to be replaced whatever its position. Gives 1, 0 when another
// build was first, -1 when behind. The replaced version stays among the builds,
// as one long silent, until its keys are gone.
var switchScript = goredis.NewScript(preamble + `
local position = redis.call('HGET', prefix .. 'meta', 'position')
local active = redis.call('GET', tag .. ':active') or ''
if not position or active ~= ARGV[2] then return 0 end
if active ~= '' then
  local other = redis.call('HGET', tag .. ':' .. active .. ':meta', 'position') or '0'
  if ARGV[3] ~= '1' and (#other > #position or (#other == #position and other > position)) then return -1 end
  redis.call('DEL', tag .. ':' .. active .. ':meta')
  redis.call('ZADD', tag .. ':builds', 0, active)
end
redis.call('SET', tag .. ':active', version)
redis.call('ZREM', tag .. ':builds', version)
return 1
`)
