-- acquire_lock: take the lock of a run or of a step with the next fence; its holder gets the same again.
-- A lock that would outlive any lease, the longest usual one and the longest that was given (the
-- server's clock went backwards), counts as expired. A copy of the call that comes after the lock
-- was given back takes nothing: ctl remembers who gave back last.
-- KEYS locked ctl lock
-- ARGV holder lease_ms longest_ms
-- OK fence | BUSY pttl | NOTFOUND | RELEASED
local locked, ctl, lock = KEYS[1], KEYS[2], KEYS[3]
local holder, lease_ms, longest_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', locked) == 0 then return { 'NOTFOUND' } end
local current = redis.call('GET', lock)
local c = redis.call('HMGET', ctl, 'fence', 'lock_ms', 'released')
if current == holder then return { 'OK', tonumber(c[1]) } end
if string.find(' ' .. (c[3] or ''), ' ' .. holder .. ' ', 1, true) then return { 'RELEASED' } end
local given_ms = tonumber(c[2] or '0')
if current then
  local pttl = redis.call('PTTL', lock)
  if pttl <= math.max(tonumber(longest_ms), given_ms) then return { 'BUSY', pttl } end
end
local fence = redis.call('HINCRBY', ctl, 'fence', 1)
if given_ms < tonumber(lease_ms) then redis.call('HSET', ctl, 'lock_ms', lease_ms) end
redis.call('SET', lock, holder, 'PX', lease_ms)
return { 'OK', fence }
