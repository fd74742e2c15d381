-- release_lock: give the lock of a run or of a step back, if it is still this holder's. Either way the
-- holder is known as one that is done: a copy of its acquisition that comes later takes no lock.
-- KEYS ctl lock
-- ARGV holder
-- OK | LOST
local ctl, lock, holder = KEYS[1], KEYS[2], ARGV[1]

local is_held = redis.call('GET', lock) == holder
local released = redis.call('HMGET', ctl, 'fence', 'released')
if is_held then redis.call('DEL', lock) end            -- first what a server without memory accepts
if released[1] and not string.find(released[2] or '', holder .. ' ', 1, true) then   -- nothing of a deleted run comes back
  redis.call('HSET', ctl, 'released', string.sub(holder .. ' ' .. (released[2] or ''), 1, 120))
end
return { is_held and 'OK' or 'LOST' }
