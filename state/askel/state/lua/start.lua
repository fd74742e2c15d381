-- start: create the run of a run.start entry and own it; after a crash, own it again.
-- KEYS run ctl history lock stream events runs
-- ARGV group consumer entry owner lease_ms robbed_limit offset run_id workflow input body
-- OK turn workflow status input history | LOST | GONE | EXISTS | CONFLICT | BUSY pttl | POISON
--- include clock entry index owner create activate
local run, ctl, history, lock, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, consumer, entry, owner, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local robbed_limit, offset, run_id, workflow, input, body = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]

local x = redis.call('HMGET', ctl, 'token', 'owner', 'turn', 'start', 'robbed')
local r = redis.call('HMGET', run, 'status', 'workflow', 'input')
if not pending(stream, group, entry, consumer) then return { 'LOST' } end
if r[1] and x[1] ~= entry then
  if x[4] ~= entry then
    return { r[2] == workflow and r[3] == input and 'EXISTS' or 'CONFLICT' }
  end
  drop(stream, group, entry)
  return { 'GONE' }
end
if r[1] and TERMINAL[r[1]] then
  drop(stream, group, entry)
  disown(ctl, lock, x[2])
  return { 'GONE' }
end
local pttl = busy(lock, x[2], owner)
if pttl then return { 'BUSY', pttl } end
redis.call('LLEN', history)                             -- refuses a key of another type before any write
if not r[1] then
  local at = clock(offset)
  create({ run = run, runs = KEYS[7], history = history, events = KEYS[6] },
    run_id, workflow, input, at, {}, body)
  redis.call('HSET', ctl, 'token', entry, 'start', entry, 'turn', 0)
end
return activated({ run = run, ctl = ctl, history = history, lock = lock }, owner, lease_ms, robbed_limit, { x[2], x[3], x[5] })
