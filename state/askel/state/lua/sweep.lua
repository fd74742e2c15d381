-- sweep: claim entries that nobody has renewed for long, from where the last sweeper stopped; one sweeps at a time.
-- A turn lasts every_ms. It is over at once when its holder has no more room: then anybody goes on. Behind
-- the end of the list nobody sweeps until the turn is over. What was deleted from the stream while it was
-- pending becomes a dead letter.
-- Where the server's clock has jumped (now is before the last turn, or long after what the caller expects
-- by its own clock), no idle time means anything: each entry is first renewed for whoever has it.
-- KEYS stream turn dead
-- ARGV group consumer idle_ms room every_ms offset expected
-- OK now cursor left_ms {entry deliveries...} {deleted...} | WAIT now ms
--- include clock tolerant
local stream, turn, dead = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, idle_ms, room, every_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local expected = tonumber(ARGV[7])
local MOST = 200

local now = tonumber(clock(ARGV[6]))
local x = redis.call('HMGET', turn, 'holder', 'at', 'until', 'cursor', 'more', 'anew')
local at, till, cursor, anew = tonumber(x[2] or '0'), tonumber(x[3] or '0'), x[4] or '0-0', x[6] or ''
if at > now or (expected and now - expected > idle_ms / 2) then anew = '-' end
local is_on = at <= now and now < till and anew == ''
if is_on and x[1] ~= consumer then
  local left = till - now
  return { 'WAIT', now, x[5] == '1' and math.ceil(math.min(left, every_ms / 8)) or left }
end
if not is_on then at, till = now, now + every_ms end
local function stamp(number) return string.format('%.0f', number) end
-- Where the dead stream is of another type, what would have to go there is left pending; the rest is claimed.
local function check_dead(from)
  if tolerant('XLEN', dead) then return end
  for _, entry in ipairs(redis.call('XPENDING', stream, group, from, '+', 10 * MOST)) do
    if #redis.call('XRANGE', stream, entry[1], entry[1]) == 0 then redis.call('XLEN', dead) end
  end
end
local function bury(id)
  redis.call('XADD', dead, '*', 'reason', 'body_lost', 'detail', 'it was deleted from its stream while it was pending',
    'stream', stream, 'entry', id, 'deliveries', '1', 'at', stamp(now))
end

check_dead(anew ~= '' and anew or cursor)
if anew ~= '' then
  local page = redis.call('XPENDING', stream, group, anew, '+', MOST)
  for _, entry in ipairs(page) do
    if #redis.call('XRANGE', stream, entry[1], entry[1]) == 0 then
      redis.call('XACK', stream, group, entry[1])          -- renewing it would lose it without a word
      bury(entry[1])
    else
      redis.call('XCLAIM', stream, group, entry[2], 0, entry[1], 'JUSTID')
    end
  end
  cursor, anew = '0-0', #page == MOST and '(' .. page[MOST][1] or ''
  redis.call('HSET', turn, 'holder', consumer, 'at', stamp(at), 'until', stamp(till), 'cursor', cursor, 'anew', anew)
  if anew ~= '' then return { 'OK', now, anew, till - now, {}, {} } end
end
local count = math.min(room, MOST)
local reply = redis.call('XAUTOCLAIM', stream, group, consumer, idle_ms, cursor, 'COUNT', count, 'JUSTID')
local ids, deleted = reply[2], reply[3] or {}
cursor = reply[1]
local holder, is_last, is_full = consumer, cursor == '0-0', #ids >= room
if is_last then holder = '' elseif is_full then till = now end
redis.call('HSET', turn, 'holder', holder, 'at', stamp(at), 'until', stamp(till),
  'cursor', cursor, 'more', (not is_last and #ids >= count) and '1' or '0')
for _, id in ipairs(deleted) do bury(id) end
local found = {}
for k, id in ipairs(ids) do
  found[2 * k - 1], found[2 * k] = id, redis.call('XPENDING', stream, group, id, id, 1)[1][4]
end
return { 'OK', now, cursor, till - now, found, deleted }
