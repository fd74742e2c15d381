-- renew_lock: hold the run lock for another lease, if it is still this holder's.
-- KEYS lock
-- ARGV holder lease_ms
-- OK | LOST
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'LOST' } end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'OK' }
