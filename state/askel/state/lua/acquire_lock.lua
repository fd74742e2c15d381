-- acquire_lock: take the run lock with the next fence; asked again by its holder it answers the same.
-- A lock that would outlive any lease, the longest usual one and the last that was given (the
-- server's clock went backwards), counts as expired.
-- KEYS run ctl lock
-- ARGV holder lease_ms longest_ms
-- OK fence | BUSY pttl | NOTFOUND
local run, ctl, lock = KEYS[1], KEYS[2], KEYS[3]
local holder, lease_ms, longest_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', run) == 0 then return { 'NOTFOUND' } end
local current = redis.call('GET', lock)
if current == holder then return { 'OK', tonumber(redis.call('HGET', ctl, 'fence')) } end
if current then
  local pttl = redis.call('PTTL', lock)
  local given_ms = tonumber(redis.call('HGET', ctl, 'lock_ms') or '0')
  if pttl <= math.max(tonumber(longest_ms), given_ms) then return { 'BUSY', pttl } end
end
local fence = redis.call('HINCRBY', ctl, 'fence', 1)
redis.call('HSET', ctl, 'lock_ms', lease_ms)
redis.call('SET', lock, holder, 'PX', lease_ms)
return { 'OK', fence }
