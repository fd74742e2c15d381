-- settle: change a run's status because a command asks for it: cancel, suspend, resume, complete, fail.
-- A terminal status is final at once; the run's owner learns of it from its next turn or renewal.
-- KEYS run ctl history lock stream commands events runs
-- ARGV group entry offset run_id command_id allowed target outcome json body
-- OK owner | ALREADY | ILLEGAL status | DUP | NOTFOUND | GONE | BUSY pttl
--- include clock entry terminal owner drive index change since
local run, ctl, history, lock, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, entry, offset, run_id, command_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local allowed, target, outcome, json, body = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local r = redis.call('HMGET', run, 'status', 'since')
local status = r[1]
if not status then return { 'NOTFOUND' } end
if sent_before(r[2], entry) then
  drop(stream, group, entry)                               -- for a run that had this id before
  return { 'GONE' }
end
local ids = command_id ~= '' and redis.call('HMGET', ctl, 'id:' .. command_id, 'old:' .. command_id)
if ids and (ids[1] or ids[2]) then
  return { (entry == '' or drop(stream, group, entry) == 1) and 'DUP' or 'GONE' }
end
local already = status == target
if already and json ~= '' and redis.call('HGET', run, outcome) ~= json then return { 'ILLEGAL', status } end
if not already and not string.find(allowed, ',' .. status .. ',', 1, true) then return { 'ILLEGAL', status } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local pttl = not already and busy(ctl, lock, x[2], '')
if pttl then return { 'BUSY', pttl } end
local keys = { run = run, events = KEYS[7], runs = KEYS[8] }
if not already then                                      -- keys of another type are refused before any write
  redis.call('LLEN', history)
  check_change(keys, status, target)
  if not TERMINAL[target] then check_drive(KEYS[6], x) end
end
if entry ~= '' and drop(stream, group, entry) == 0 then return { 'GONE' } end
if entry == '' and not already then redis.call('HDEL', ctl, 'nudged') end    -- accepted even when out of memory
if command_id ~= '' then redis.call('HSET', ctl, 'id:' .. command_id, '1') end
if already then return { 'ALREADY' } end
local at = clock(offset)
local seq = redis.call('RPUSH', history, opened(at, body))
change(keys, run_id, status, target, at, seq, json ~= '' and { outcome, json } or {})
if TERMINAL[target] then
  if entry == '' then disown(ctl, lock, x[2]) return { 'OK', '' } end   -- by whoever holds the token
  if x[2] and x[4] ~= '1' then redis.call('HSET', ctl, 'nudged', '1') return { 'OK', x[2] } end
  return { 'OK', '' }
end
return { 'OK', drive(ctl, KEYS[6], run_id, x) }
