-- activate: own a run whose token this consumer holds, and load it.
-- KEYS run ctl history lock stream
-- ARGV group consumer entry owner lease_ms robbed_limit
-- OK turn workflow status input history | LOST | GONE | BUSY pttl | POISON
--- include terminal owner activate
local run, ctl, history, lock, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, consumer, entry, owner, lease_ms, robbed_limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local x = redis.call('HMGET', ctl, 'token', 'owner', 'turn', 'robbed')
local status = redis.call('HGET', run, 'status')
if not pending(stream, group, entry, consumer) then return { 'LOST' } end
if not status or x[1] ~= entry then
  drop(stream, group, entry)
  return { 'GONE' }
end
if TERMINAL[status] then
  redis.call('GET', lock)                                -- refuses a key of another type before any write
  drop(stream, group, entry)
  disown(ctl, lock, x[2])
  return { 'GONE' }
end
local pttl = busy(ctl, lock, x[2], owner)
if pttl then return { 'BUSY', pttl } end
return activated({ run = run, ctl = ctl, history = history, lock = lock }, owner, lease_ms, robbed_limit, { x[2], x[3], x[4] })
