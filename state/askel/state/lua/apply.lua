-- apply: what an embedding program changes in one run: every change of the list, or none of them.
-- A late copy is known by its nonce, which the run keeps for its last writes.
-- A definition in Lua costs where it is reached: what few lists need is included there.
-- KEYS run ctl history lock commands steps key...
-- ARGV holder offset run_id nonce change...
-- OK owner at answer... | ALREADY answer... | NOTFOUND place | CONFLICT place | ILLEGAL place status | TERMINAL place status | SPENT place attempts | LOCKLOST
--- include clock mirror terminal holder written moves
local run, ctl, history, lock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, run_id, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local r = redis.call('HMGET', run, 'status', 'changes')
local status = r[1]
if not status then return { 'NOTFOUND', 0 } end
if was_written(r[2], nonce) then
  local kind, step, _, _, next_kind = unpack(ARGV, 5, 9)
  local has_hash = kind == 'insert' or (kind == 'step' and next_kind == 'retry')
  return { 'ALREADY', has_hash and redis.call('HGETALL', KEYS[tonumber(step)]) or nil }
end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local at, steps, names, entries, place = clock(offset), {}, {}, {}, 0
local lands, wakes, moved_run, vars                       -- what the list comes to
local loads, last_load = nil, 0                          -- places whose answer is the hash of a step
--- include changes
if not entries[1] then
--- include loaded
  return { 'ALREADY', unpack(answers) }
end

-- A key of another type is refused before any write: it is read, or it is the first to be written.
local who = wakes and redis.call('HGET', ctl, TERMINAL[status] and 'owner' or 'start')
if who and not TERMINAL[status] then redis.call('XLEN', KEYS[5]) end
if names[1] then redis.call('LLEN', KEYS[6]) end
if lands or moved_run then redis.call('LLEN', history) end
if moved_run then
  redis.call('XLEN', moved_run.events)
  if TERMINAL[status] then redis.call('HDEL', ctl, 'nudged') end   -- accepted even out of memory
end
--- include apply
if moved_run then                                        -- be it to where it was
--- include ending
else
  redis.call('HSET', run, 'updatedAt', at, 'changes', with_write(r[2], nonce))
end
if who and not TERMINAL[status] then
--- include drive
  who = drive(ctl, KEYS[5], run_id, redis.call('HMGET', ctl, unpack(WAKE)))
end
--- include loaded
return { 'OK', who or '', at, unpack(answers) }
