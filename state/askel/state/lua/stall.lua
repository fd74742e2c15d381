-- stall: a step command whose function no worker has goes to the dead stream, and its run is stalled.
-- A run that does not wait for it goes on: one whose step has ended, is of another function, was begun under
-- another entry that is pending, or, where daemons drive the run, does not exist. What was sent for a run that had the id before is dropped.
-- KEYS run ctl history lock stream step commands events runs dead
-- ARGV group entry offset run_id born rpc_name allowed error body detail word...
-- OK owner | GONE | BUSY pttl
--- include clock entry terminal owner drive index change since words
local run, ctl, history, lock, stream, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, entry, offset, run_id, born, rpc = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local allowed, err, body = ARGV[7], ARGV[8], ARGV[9]
local words = words_from(11, 0)

local r = redis.call('HMGET', run, 'status', 'createdAt', 'since')
local status = r[1]
if (born ~= '' and r[2] ~= born) or sent_before(r[3], entry) then
  drop(stream, group, entry)
  return { 'GONE' }
end
local s = redis.call('HMGET', step, 'status', 'rpcName', 'lease')
local x = redis.call('HMGET', ctl, unpack(WAKE))
-- A step that is not there is waited for only where a program drives the run: a turn inserts what it sends for.
local waits = (not s[1] and not x[3]) or (s[2] == rpc and s[1] ~= 'succeeded' and s[1] ~= 'failed')
if s[1] == 'running' and s[3] and s[3] ~= entry and #redis.call('XPENDING', stream, group, s[3], s[3], 1) == 1 then waits = false end
local stalls = waits and status and string.find(allowed, ',' .. status .. ',', 1, true)
local pttl = stalls and busy(ctl, lock, x[2], '')
if pttl then return { 'BUSY', pttl } end
local keys = { run = run, events = KEYS[8], runs = KEYS[9] }
redis.call('XLEN', KEYS[10])                             -- keys of another type are refused before any write
if stalls then
  redis.call('LLEN', history)
  check_change(keys, status, 'stalled')
  check_drive(KEYS[7], x)
end

if drop(stream, group, entry) == 0 then return { 'GONE' } end
local at = clock(offset)
redis.call('XADD', KEYS[10], '*', 'reason', 'unknown_step', 'detail', ARGV[10], 'stream', stream, 'entry', entry,
  'deliveries', '1', 'at', at, unpack(words))
if not stalls then return { 'OK', '' } end
local seq = redis.call('RPUSH', history, opened(at, body))
change(keys, run_id, status, 'stalled', at, seq, { 'error', err })
return { 'OK', drive(ctl, KEYS[7], run_id, x) }
