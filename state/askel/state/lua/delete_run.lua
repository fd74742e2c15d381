-- delete_run: remove a run with every key and index entry of it; an ended one, by force a live one.
-- Forced, somebody else's lock does not stand in the way. The deletion is remembered for an hour where
-- that is asked for, and where a command that was read could still make the run anew.
-- KEYS run ctl history lock steps step_stem step_lock_stem run_state events runs commands stray...
-- ARGV holder forced remember group offset run_id nonce
-- OK owner | ALREADY | NOTFOUND | ACTIVE status | BUSY pttl | LOCKLOST
--- include clock terminal owner tolerant statuses index past erase unindex deleted token
local run, ctl, history, lock, events, runs, commands = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[9], KEYS[10], KEYS[11]
local holder, forced, remember, group = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local offset, run_id, nonce = ARGV[5], ARGV[6], ARGV[7]

if redis.call('EXISTS', run) == 0 then
  return { redis.call('ZSCORE', runs .. ':deleted', run_id) and 'ALREADY' or 'NOTFOUND' }
end
if made_deleted(runs, run_id, nonce) then return { 'ALREADY' } end   -- a late copy, and the run was made anew
local r = tolerant('HMGET', run, 'status', 'workflow', 'nonce') or {}
local current = tolerant('GET', lock)
if holder ~= '' and current ~= holder then return { 'LOCKLOST' } end
if not forced and not TERMINAL[r[1] or ''] then return { 'ACTIVE', r[1] or 'damaged' } end
if holder == '' and current and not forced then return { 'BUSY', remaining(ctl, lock) } end
local x = tolerant('HMGET', ctl, 'token', 'owner', 'start', 'queue') or {}
local length = tolerant('LLEN', history) or 0
redis.call('XLEN', events)                               -- refuses a key of another type before any write
local streams = x[1] and streams_of_token(commands, x[4]) or {}
for _, stream in ipairs(streams) do
  local found = #streams > 1 and (tolerant('XRANGE', stream, x[1], x[1]) or {})[1]
  if #streams == 1 or (found and drives(found, run_id)) then drop(stream, group, x[1]) end
end
local strays = {}                                         -- may be more than unpack can take
for k = 12, #KEYS do strays[#strays + 1] = KEYS[k] end
erase({ run = run, ctl = ctl, history = history, lock = lock, steps = KEYS[5], step_stem = KEYS[6],
  step_lock_stem = KEYS[7], run_state = KEYS[8] }, false, strays)
for _, workflow in ipairs(r[2] and { r[2] } or redis.call('ZRANGE', runs .. ':workflows', 0, -1)) do
  unindex(runs, run_id, workflow)
end
redis.call('ZREM', runs, run_id)
if remember or x[1] then remember_deleted(runs, run_id, { x[1], x[2], x[3], r[3], nonce ~= '' and nonce }) end
redis.call('XADD', events, 'MAXLEN', '~', 10000, '*', 'type', 'run', 'run_id', run_id, 'seq', length + 1,
  'status', 'deleted', 'at', clock(offset))
return { 'OK', x[2] or '' }
