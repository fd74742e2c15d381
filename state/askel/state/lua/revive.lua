-- revive: a run that nobody drives, and that waits for nothing, gets a token, if it is as it was found.
-- KEYS run ctl commands
-- ARGV run_id turn
-- OK | MOVED
--- include drive
local run, ctl, run_id = KEYS[1], KEYS[2], ARGV[1]
local x = redis.call('HMGET', ctl, unpack(WAKE))
local turn = redis.call('HGET', ctl, 'turn')
if redis.call('HGET', run, 'status') ~= 'running' or x[1] or not x[3] or (turn or '0') ~= ARGV[2] then return { 'MOVED' } end
drive(ctl, KEYS[3], run_id, x)
return { 'OK' }
