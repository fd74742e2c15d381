-- release_lock: give the run lock back, if it is still this holder's.
-- KEYS lock
-- ARGV holder
-- OK | LOST
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'LOST' } end
redis.call('DEL', KEYS[1])
return { 'OK' }
