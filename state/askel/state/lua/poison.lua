-- poison: a step command that killed whoever took it goes to the dead stream, and its step has failed.
-- KEYS run ctl history lock stream step commands dead
-- ARGV group entry offset run_id step_name error reason detail deliveries word...
-- OK owner | GONE | BUSY pttl
--- include clock entry mirror terminal owner drive
local run, ctl, history, lock, stream, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, entry, offset, run_id, name, err = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local status = redis.call('HGET', run, 'status')
local s = redis.call('HMGET', step, unpack(FIELDS))
local open = status and not TERMINAL[status] and (s[1] == 'running' or s[1] == 'scheduled' or s[1] == 'pending')
local x = redis.call('HMGET', ctl, unpack(WAKE))
local pttl = open and busy(ctl, lock, x[2], '')
if pttl then return { 'BUSY', pttl } end
redis.call('XLEN', KEYS[8])                              -- keys of another type are refused before any write
if open then
  redis.call('LLEN', history)
  check_drive(KEYS[7], x)
end

if drop(stream, group, entry) == 0 then return { 'GONE' } end
local at = clock(offset)
redis.call('XADD', KEYS[8], '*', 'reason', ARGV[7], 'detail', ARGV[8], 'stream', stream, 'entry', entry,
  'deliveries', ARGV[9], 'at', at, unpack(ARGV, 10))
if not open then return { 'OK', '' } end
redis.call('HSET', step, 'status', 'failed', 'error', err, 'updatedAt', at)
moved(step, s[2], 'failed', 'error', err)
mirror(at)
redis.call('RPUSH', history, closed(s, at, name, s[1] == 'running' and 'lost' or 'failed', 'error', err, ',"final":true'))
return { 'OK', drive(ctl, KEYS[7], run_id, x) }
