-- poison: a step command that killed whoever took it goes to the dead stream, and its step has failed.
-- A step that is not the command's to fail is left alone: of a run that had the id before, or begun under
-- another entry that is pending.
-- KEYS run ctl history lock stream step commands dead
-- ARGV group entry offset run_id step_name error born reason detail deliveries word...
-- OK owner | GONE | BUSY pttl
--- include clock entry mirror terminal owner drive since words
local run, ctl, history, lock, stream, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, entry, offset, run_id, name, err, born = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local words = words_from(11, 0)

local r = redis.call('HMGET', run, 'status', 'createdAt', 'since')
local s = redis.call('HMGET', step, unpack(FIELDS))
local open = r[1] and not TERMINAL[r[1]] and (s[1] == 'running' or s[1] == 'scheduled' or s[1] == 'pending')
if (born ~= '' and r[2] ~= born) or sent_before(r[3], entry) then open = false end
local lease = open and s[1] == 'running' and redis.call('HGET', step, 'lease')
if lease and lease ~= entry and #redis.call('XPENDING', stream, group, lease, lease, 1) == 1 then open = false end
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
redis.call('XADD', KEYS[8], '*', 'reason', ARGV[8], 'detail', ARGV[9], 'stream', stream, 'entry', entry,
  'deliveries', ARGV[10], 'at', at, unpack(words))
if not open then return { 'OK', '' } end
redis.call('HSET', step, 'status', 'failed', 'error', err, 'updatedAt', at)
moved(step, s[2], 'failed', 'error', err)
mirror(at)
redis.call('RPUSH', history, closed(s, at, name, s[1] == 'running' and 'lost' or 'failed', 'error', err, ',"final":true'))
return { 'OK', drive(ctl, KEYS[7], run_id, x) }
