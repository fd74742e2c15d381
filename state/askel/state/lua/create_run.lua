-- create_run: a run that a program drives itself, or that inline mode is about to run.
-- KEYS run ctl history lock events runs stream
-- ARGV offset run_id workflow input owner lease_ms group entry body field...
-- OK | EXISTS | CONFLICT | GONE
--- include clock entry index owner create
local run, ctl, history, lock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local offset, run_id, workflow, input, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lease_ms, group, entry, body = ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local r = redis.call('HMGET', run, 'status', 'workflow', 'input')
if r[1] then
  if owner ~= '' and redis.call('HGET', ctl, 'owner') == owner then return { 'OK' } end
  return { r[2] == workflow and r[3] == input and 'EXISTS' or 'CONFLICT' }
end
redis.call('LLEN', history)                             -- refuses a key of another type before any write
if entry ~= '' and drop(KEYS[7], group, entry) == 0 then return { 'GONE' } end
create({ run = run, runs = KEYS[6], history = history, events = KEYS[5] },
  run_id, workflow, input, clock(offset), { unpack(ARGV, 10) }, body)
if owner ~= '' then
  redis.call('HSET', ctl, 'owner', owner, 'turn', 0, 'fence', 1)
  redis.call('SET', lock, owner, 'PX', lease_ms)
end
return { 'OK' }
