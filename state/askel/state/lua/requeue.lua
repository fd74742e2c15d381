-- requeue: hand an activation back: another token in place of this one, at the end of the stream.
-- KEYS ctl lock stream commands
-- ARGV group entry owner run_id
-- OK | LOST
--- include terminal owner
local x = redis.call('HMGET', KEYS[1], 'token', 'owner')
if x[1] ~= ARGV[2] or x[2] ~= ARGV[3] then return { 'LOST' } end
redis.call('XLEN', KEYS[4])                              -- keys of another type are refused before any write
redis.call('GET', KEYS[2])
drop(KEYS[3], ARGV[1], ARGV[2])
disown(KEYS[1], KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'token', redis.call('XADD', KEYS[4], '*', 'type', 'run.advance', 'run_id', ARGV[4]))
return { 'OK' }
