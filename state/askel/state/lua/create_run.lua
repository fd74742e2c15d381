-- create_run: a run that a program drives itself, or that inline mode is about to run.
-- policy: reject, or what lets a run that exists give way to a new generation:
-- after-terminal where it has ended, terminate-existing in any case. nonce: of a call that names the run.
-- KEYS run ctl history lock events runs stream stem...
-- ARGV offset run_id workflow input owner lease_ms group entry body nonce policy holder field...
-- OK | EXISTS | CONFLICT | GONE | BUSY pttl | LOCKLOST
--- include clock opening index terminal owner holder deleted past policy create
local run, ctl, history, lock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local offset, run_id, workflow, input, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lease_ms, group, entry, body, nonce, policy, holder = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]

local r = redis.call('HMGET', run, 'status', 'workflow', 'input', 'nonce', 'id')
if not r[5] then r[1] = false end                       -- what a late write of another program left is no run
local x = redis.call('HMGET', ctl, 'owner', 'was')
local given_up = r[1] and gives_way(policy, r[1])
if r[1] then
  if (owner ~= '' and x[1] == owner) or (nonce ~= '' and (r[4] == nonce or made_earlier(x[2], nonce))) then return { 'OK' } end
  if made_earlier(x[2], entry) then
    drop(KEYS[7], group, entry)                            -- it made a generation before this one
    return { 'GONE' }
  end
  if not given_up then return { r[2] == workflow and r[3] == input and 'EXISTS' or 'CONFLICT' } end
  if lock_lost(lock, holder) then return { 'LOCKLOST' } end
  local pttl = busy(ctl, lock, x[1], holder)
  if pttl then return { 'BUSY', pttl } end
end
if not r[1] and entry == '' and made_before(KEYS[6], run_id, nonce, owner) then return { 'OK' } end
if not r[1] and deleted_since(KEYS[6], run_id, entry) then
  drop(KEYS[7], group, entry)
  return { 'GONE' }
end
redis.call('LLEN', history)                             -- keys of another type are refused before any write
local keys = { run = run, runs = KEYS[6], history = history, events = KEYS[5], lock = holder == '' and lock }
local stems = { unpack(KEYS, 8) }
check_new(keys, stems, run_id, workflow, r)
if entry ~= '' and drop(KEYS[7], group, entry) == 0 then return { 'GONE' } end
local at = clock(offset)
local fields, more = {}, ''
local anew = given_up or redis.call('ZSCORE', KEYS[6] .. ':deleted', run_id)
if not r[1] then clear_place(keys, stems, run_id) end
if given_up then
--- include statuses unindex change succeed
  fields, more = succeed(keys, stems, run_id, r[1], r[2] or '', at)
end
for k = 13, #ARGV do fields[#fields + 1] = ARGV[k] end
if anew then fields[#fields + 1] = 'since' fields[#fields + 1] = clock('0') end
if nonce ~= '' then fields[#fields + 1] = 'nonce' fields[#fields + 1] = nonce end
create(keys, run_id, workflow, input, at, fields, body .. more)
if owner ~= '' then
  redis.call('HSET', ctl, 'owner', owner, 'turn', 0)
  redis.call('HINCRBY', ctl, 'fence', 1)
  redis.call('SET', lock, owner, 'PX', lease_ms)
end
return { 'OK' }
