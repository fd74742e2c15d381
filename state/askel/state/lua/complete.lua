-- complete: record the outcome of an attempt, acknowledge its entry, wake who decides on the run.
-- An outcome that is not final leaves the step pending for its next attempt, after a delay or at once.
-- KEYS run ctl history lock stream step commands timers retry_stream
-- ARGV group entry nonce attempt offset run_id step_name status outcome json final delay_ms timer command_id retry...
-- OK owner | ALREADY | DUP | NOTFOUND | TERMINAL status | GONE | FENCED | BUSY pttl
--- include clock entry mirror terminal owner drive since words
local run, ctl, history, lock, stream, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, entry, nonce, attempt, offset, run_id, name = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local becomes, outcome, json, final, delay, timer = ARGV[8], ARGV[9], ARGV[10], ARGV[11] == '1', ARGV[12], ARGV[13]
local command_id = ARGV[14]

local r = redis.call('HMGET', run, 'status', 'since')
local status = r[1]
if nonce == '' and sent_before(r[2], entry) then
  drop(stream, group, entry)                               -- for a run that had this id before
  return { 'GONE' }
end
if nonce == '' and not status then return { 'NOTFOUND' } end   -- a command, not an attempt of ours
local ids = command_id ~= '' and redis.call('HMGET', ctl, 'id:' .. command_id, 'old:' .. command_id)
if ids and (ids[1] or ids[2]) then
  return { drop(stream, group, entry) == 1 and 'DUP' or 'GONE' }
end
if nonce == '' and TERMINAL[status] then return { 'TERMINAL', status } end
if not status or TERMINAL[status] then
  drop(stream, group, entry)
  return { 'GONE' }
end
local s = redis.call('HMGET', step, unpack(FIELDS))
local settled = s[1] == 'succeeded' or s[1] == 'failed'
if nonce ~= '' and s[3] == nonce and ((s[2] == attempt and settled)
    or (s[1] == 'pending' and tonumber(s[2]) == attempt + 1)) then return { 'ALREADY' } end
-- A worker in another language never began the attempt here: it has no nonce to show.
local open = s[1] == 'running' or (nonce == '' and (s[1] == 'scheduled' or s[1] == 'pending'))
if not open or s[2] ~= attempt or (nonce ~= '' and s[3] ~= nonce) then return { 'FENCED' } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local pttl = busy(ctl, lock, x[2], '')
if pttl then return { 'BUSY', pttl } end
redis.call('LLEN', history)                              -- keys of another type are refused before any write
if final then
  check_drive(KEYS[7], x)
elseif tonumber(delay) > 0 then
  redis.call('ZCARD', KEYS[8])
else
  redis.call('XLEN', KEYS[9])
end
local words = words_from(15, (final or tonumber(delay) > 0) and 0 or 2)

if drop(stream, group, entry) == 0 and nonce == '' then return { 'GONE' } end
if command_id ~= '' then redis.call('HSET', ctl, 'id:' .. command_id, '1') end
local at = clock(offset)
moved(step, attempt, becomes, outcome, json)
local closing = closed(s, at, name, becomes, outcome, json, final and becomes == 'failed' and ',"final":true' or '')
if final then
  redis.call('HSET', step, 'status', becomes, outcome, json, 'updatedAt', at)
  redis.call('RPUSH', history, closing)
  mirror(at)
  return { 'OK', drive(ctl, KEYS[7], run_id, x) }
end
redis.call('HSET', step, 'status', 'pending', 'attemptCount', attempt + 1, 'updatedAt', at)
redis.call('RPUSH', history, closing,
  opened(at, '"t":"step","name":' .. cjson.encode(name) .. ',"status":"pending","attempt":' .. (attempt + 1)))
moved(step, attempt + 1, 'pending')
mirror(at)
if tonumber(delay) > 0 then
  redis.call('ZADD', KEYS[8], at + delay, timer)
else
  redis.call('XADD', KEYS[9], '*', unpack(words))
end
return { 'OK', '' }
