-- sweep: claim entries that nobody has renewed for long, from where the last sweeper stopped; one sweeps at a time.
-- A turn lasts every_ms. It is over at once when its holder has no more room: then anybody goes on. Behind
-- the end of the list nobody sweeps until the turn is over. What was deleted from the stream while it was
-- pending becomes a dead letter.
-- KEYS stream turn dead
-- ARGV group consumer idle_ms room every_ms offset
-- OK cursor left_ms {entry deliveries...} {deleted...} | WAIT ms
--- include clock
local stream, turn, dead = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, idle_ms, room, every_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local MOST = 200

local now = tonumber(clock(ARGV[6]))
local x = redis.call('HMGET', turn, 'holder', 'at', 'until', 'cursor', 'more')
local at, till = tonumber(x[2] or '0'), tonumber(x[3] or '0')
local is_on = at <= now and now < till                   -- a turn that began later than now: the clock was set back
if is_on and x[1] ~= consumer then
  local left = till - now
  return { 'WAIT', x[5] == '1' and math.ceil(math.min(left, every_ms / 8)) or left }
end
if not is_on then at, till = now, now + every_ms end
local count = math.min(room, MOST)
local reply = redis.call('XAUTOCLAIM', stream, group, consumer, idle_ms, x[4] or '0-0', 'COUNT', count, 'JUSTID')
local cursor, ids, deleted = reply[1], reply[2], reply[3] or {}
local holder, is_last, is_full = consumer, cursor == '0-0', #ids >= room
if is_last then holder = '' elseif is_full then till = now end
redis.call('HSET', turn, 'holder', holder, 'at', string.format('%.0f', at), 'until', string.format('%.0f', till),
  'cursor', cursor, 'more', (not is_last and #ids >= count) and '1' or '0')
for _, id in ipairs(deleted) do
  redis.call('XADD', dead, '*', 'reason', 'body_lost', 'detail', 'it was deleted from its stream while it was pending',
    'stream', stream, 'entry', id, 'deliveries', '1', 'at', string.format('%.0f', now))
end
local found = {}
for k, id in ipairs(ids) do
  found[2 * k - 1], found[2 * k] = id, redis.call('XPENDING', stream, group, id, id, 1)[1][4]
end
return { 'OK', cursor, till - now, found, deleted }
