-- release_lock: give the lock of a run or of a step back, if it is still this holder's.
-- KEYS ctl lock
-- ARGV holder
-- OK | LOST
local ctl, lock, holder = KEYS[1], KEYS[2], ARGV[1]

if redis.call('GET', lock) ~= holder then return { 'LOST' } end
redis.call('DEL', lock)
local released = redis.call('HMGET', ctl, 'fence', 'released')
if released[1] then                                   -- nothing of a deleted run comes back
  redis.call('HSET', ctl, 'released', string.sub(holder .. ' ' .. (released[2] or ''), 1, 120))
end
return { 'OK' }
