-- take_up: entries that were read and are pending for nobody, because somebody removed a consumer or moved the
-- group on, become pending again, for a consumer that is none: whoever works on one takes it back as it renews
-- it, and what nobody takes back the sweep finds, as if its worker had died now. What is delivered and still
-- on the stream is looked at, a page an interval, from where the last look ended.
-- KEYS stream turn
-- ARGV group every_ms limit offset
-- OK {entry...} | WAIT ms
--- include clock tolerant place nobody
local stream, turn, group = KEYS[1], KEYS[2], ARGV[1]
local every_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3])

local now = tonumber(clock(ARGV[4]))
local x = redis.call('HMGET', turn, 'looked', 'lookedTo')
local since = now - tonumber(x[1] or '0')
if since >= 0 and since < every_ms then return { 'WAIT', every_ms - since } end
local last = last_delivered(stream, group)
local place, taken = x[2] and x[2] ~= '' and '(' .. x[2] or '-', {}
while last and limit > 0 do
  local batch = redis.call('XRANGE', stream, place, last, 'COUNT', math.min(limit, 20))
  if #batch == 0 then place = '-' break end
  for _, entry in ipairs(batch) do
    local id = entry[1]
    if #redis.call('XPENDING', stream, group, id, id, 1) == 0 then
      redis.call('XCLAIM', stream, group, NOBODY, 0, id, 'RETRYCOUNT', 1, 'FORCE', 'JUSTID')
      taken[#taken + 1] = id
    end
    place = '(' .. id
  end
  limit = limit - #batch
end
redis.call('HSET', turn, 'looked', string.format('%.0f', now), 'lookedTo', place == '-' and '' or string.sub(place, 2))
return { 'OK', taken }
