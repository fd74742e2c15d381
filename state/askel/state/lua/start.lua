-- start: create the run of a run.start entry and own it; after a crash, own it again.
-- policy: what lets a run that exists give way to a new generation, see create_run. Not so for a copy of the
-- command, known by its id, that made this generation or one before it.
-- KEYS run ctl history lock stream events runs stem...
-- ARGV group consumer entry owner lease_ms robbed_limit offset run_id workflow input body policy queue durability command_id
-- OK turn workflow status input history | LOST | GONE | EXISTS | CONFLICT | BUSY pttl | POISON
--- include clock entry statuses index terminal owner deleted past unindex change succeed create activate
local run, ctl, history, lock, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, consumer, entry, owner, lease_ms, robbed_limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local offset, run_id, workflow, input, body, policy, durability = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[14]
local command_id = ARGV[15]                             -- as JSON text has it, without the quotes

local x = redis.call('HMGET', ctl, 'token', 'owner', 'turn', 'start', 'robbed', 'was', 'queue')
local r = redis.call('HMGET', run, 'status', 'workflow', 'input', 'id')
if not r[4] then r[1] = false end                       -- what a late write of another program left is no run
if not pending(stream, group, entry, consumer) then return { 'LOST' } end
-- Streams give out their ids each on its own: one of another stream made no run of this id.
local made_it = x[4] == entry and (x[7] or '') == ARGV[13]
local others = r[1] and not (made_it and x[1] == entry)
local given_up = others and gives_way(policy, r[1]) and not (command_id ~= '' and command_of(history) == command_id)
if others and (made_it or made_earlier(x[6], entry) or made_earlier(x[6], word_of(command_id))) then
  drop(stream, group, entry)
  return { 'GONE' }
end
if others and not given_up then return { r[2] == workflow and r[3] == input and 'EXISTS' or 'CONFLICT' } end
if r[1] and not others and TERMINAL[r[1]] then
  redis.call('GET', lock)                                -- refuses a key of another type before any write
  drop(stream, group, entry)
  disown(ctl, lock, x[2])
  return { 'GONE' }
end
if not r[1] and deleted_since(KEYS[7], run_id, entry) then
  drop(stream, group, entry)                               -- its run was deleted
  return { 'GONE' }
end
local pttl = busy(ctl, lock, x[2], owner)
if pttl then return { 'BUSY', pttl } end
redis.call('LLEN', history)                             -- keys of another type are refused before any write
local keys = { run = run, ctl = ctl, runs = KEYS[7], history = history, events = KEYS[6], lock = lock }
if not r[1] or given_up then
  local at, fields, more, stems = clock(offset), {}, '', { unpack(KEYS, 8) }
  check_new(keys, stems, run_id, workflow, r)
  local anew = given_up or redis.call('ZSCORE', KEYS[7] .. ':deleted', run_id)
  if not r[1] then clear_place(keys, stems, run_id) end
  if given_up then fields, more = succeed(keys, stems, run_id, r[1], r[2] or '', at) end
  -- The entry that makes the run is no older than the run.
  if anew then fields[#fields + 1] = 'since' fields[#fields + 1] = string.match(entry, '^%d+') end
  if durability ~= '' then fields[#fields + 1] = 'durability' fields[#fields + 1] = durability end
  create(keys, run_id, workflow, input, at, fields, body .. more)
  redis.call('HSET', ctl, 'token', entry, 'start', entry, 'turn', 0)
  if ARGV[13] ~= '' then redis.call('HSET', ctl, 'queue', ARGV[13]) end
  if given_up then x = {} end
end
return activated(keys, owner, lease_ms, robbed_limit, { x[2], x[3], x[5] })
