-- record: append what happened to the run, whoever read the command; wake who decides.
-- kind: signal, or timer (which ends a sleep, lets a retry begin, or tells that the time of a wait is over;
-- ignored when no longer awaited).
-- KEYS run ctl history lock stream commands step
-- ARGV group entry offset run_id command_id kind step_name attempt body born
-- OK owner | STALE | DUP | NOTFOUND | TERMINAL status | GONE | BUSY pttl
--- include clock entry mirror terminal owner drive since
local run, ctl, history, lock, stream, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[7]
local group, entry, offset, run_id, command_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local kind, name, attempt, body = ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local r = redis.call('HMGET', run, 'status', 'createdAt', 'since')
local status = r[1]
if (kind == 'timer' and (not status or TERMINAL[status])) or (ARGV[10] ~= '' and r[2] ~= ARGV[10])
    or sent_before(r[3], entry) then
  drop(stream, group, entry)                               -- nobody waits for it any more
  return { 'STALE' }
end
if not status then return { 'NOTFOUND' } end
local ids = command_id ~= '' and redis.call('HMGET', ctl, 'id:' .. command_id, 'old:' .. command_id)
if ids and (ids[1] or ids[2]) then
  return { drop(stream, group, entry) == 1 and 'DUP' or 'GONE' }
end
if TERMINAL[status] then return { 'TERMINAL', status } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local pttl = busy(ctl, lock, x[2], '')
if pttl then return { 'BUSY', pttl } end
local s = kind == 'timer' and redis.call('HMGET', step, unpack(FIELDS))
redis.call('LLEN', history)                              -- keys of another type are refused before any write
check_drive(KEYS[6], x)
if drop(stream, group, entry) == 0 then return { 'GONE' } end
if command_id ~= '' then redis.call('HSET', ctl, 'id:' .. command_id, '1') end
local at = clock(offset)
local text = opened(at, body)
if kind == 'timer' then
  if s[2] ~= attempt or (s[1] ~= 'scheduled' and s[1] ~= 'pending') then return { 'STALE' } end
  if s[1] == 'scheduled' and redis.call('HEXISTS', step, 'signal') == 0 then   -- what a wait comes to, its run says
    redis.call('HSET', step, 'status', 'succeeded', 'result', 'null', 'updatedAt', at)
    text = closed(s, at, name, 'succeeded', 'result', 'null', '')
    moved(step, attempt, 'succeeded', 'result', 'null')
    mirror(at)
  end
end
redis.call('RPUSH', history, text)
return { 'OK', drive(ctl, KEYS[6], run_id, x) }
