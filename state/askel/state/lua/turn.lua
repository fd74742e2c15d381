-- turn: one atomic answer of a run's owner: results, decisions, and perhaps the end of the activation.
-- end: '' (go on), passivate, completed, failed, cancelled, suspended, stalled. keep_lock: 1 in inline mode.
-- KEYS run ctl history lock stream timers steps events runs step_or_stream...
-- ARGV group entry owner turn seen nonce end outcome json keep_lock offset run_id nresults result... ndecisions decision...
-- OK turn length at tail status | END | BEHIND turn length at tail status | LOST | GONE | TERMINAL status | CONFLICT | BUSY pttl
--- include clock entry mirror terminal owner index change turn
local run, ctl, history, lock, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, entry, owner, turn, seen, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local fin, outcome, json, keep_lock, offset, run_id = ARGV[7], ARGV[8], ARGV[9], ARGV[10] == '1', ARGV[11], ARGV[12]

local x = redis.call('HMGET', ctl, 'token', 'owner', 'turn', 'last')
local status = redis.call('HGET', run, 'status')
local at
local function answer(word, number, length)
  local tail = length > seen and redis.call('LRANGE', history, seen, seen + 499) or {}
  return { word, tonumber(number), length, at or clock(offset), tail, status }
end
if not status then return { 'GONE' } end
if TERMINAL[status] then
  if x[4] == nonce then return { 'END' } end
  if x[1] and x[1] == entry then
    redis.call('GET', lock)                              -- refuses a key of another type before any write
    drop(stream, group, entry)
    disown(ctl, lock, x[2])
  end
  return { 'TERMINAL', status }
end
if x[2] ~= owner then return { x[4] == nonce and 'END' or 'LOST' } end
if x[3] ~= turn then
  if x[4] == nonce then return answer('OK', x[3], redis.call('LLEN', history)) end
  return { 'CONFLICT' }
end
-- A failover took what the owner has seen: it must not go on from there.
if redis.call('LLEN', history) < seen then return { 'CONFLICT' } end
local holder = redis.call('GET', lock)
if holder and holder ~= owner then return { 'BUSY', remaining(ctl, lock) } end
local n_results = tonumber(ARGV[13])
local found, settled, i = check_results(n_results, 14)
if not found then return { 'CONFLICT' } end
local starts, begins = check_decisions(tonumber(ARGV[i]), i + 1, settled)
if not starts then return { 'CONFLICT' } end
local ends_run = fin ~= '' and fin ~= 'passivate'
local halted = status ~= 'running' and (begins or ends_run)
if fin ~= '' or halted then
  local length = redis.call('LLEN', history)
  if halted or length ~= seen then return answer('BEHIND', turn, length) end
end
local keys = { run = run, events = KEYS[8], runs = KEYS[9] }
check_written(starts, KEYS[6], KEYS[7])
if ends_run then check_change(keys, status, fin) end

-- First a write that Redis accepts even when it is out of memory, so that a result always lands. A turn
-- that only asks for news lands, too: the result that comes after it would wait behind it.
if fin ~= '' and entry ~= '' then
  drop(stream, group, entry)
elseif n_results > 0 or #starts == 0 then
  redis.call('HDEL', ctl, 'nudged')
end
at = clock(offset)
local entries, names = {}, {}
write_results(found, 14, at, entries)
write_decisions(starts, at, entries, names, KEYS[6])
mirror(at)
if ends_run then
  entries[#entries + 1] = opened(at, '"t":"run","status":"' .. fin .. '"' .. (json ~= '' and ',"' .. outcome .. '":' .. json or '') .. ',"seen":' .. seen)
end
local length = #entries > 0 and redis.call('RPUSH', history, unpack(entries)) or redis.call('LLEN', history)
if #names > 0 then redis.call('RPUSH', KEYS[7], unpack(names)) end
redis.call('HSET', ctl, 'turn', turn + 1, 'last', nonce, 'robbed', 0, 'nudged', '')
if ends_run then
  change(keys, run_id, status, fin, at, length, json ~= '' and { outcome, json } or {})
end
if fin ~= '' then
  disown(ctl, lock, owner)
  return { 'END' }
end
if holder and not keep_lock then redis.call('DEL', lock) end
if length == seen + #entries then return { 'OK', turn + 1, length, at, {}, status } end
return answer('OK', turn + 1, length)
