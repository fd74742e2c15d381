-- begin: start an attempt of the step that a step.execute entry names; insert the step if absent.
-- An attempt that another process left open is closed as lost; when it was the last, the step fails.
-- The step's lease is the entry its attempt is under: while that is pending, no other takes it over.
-- KEYS run ctl history lock stream step steps commands
-- ARGV group consumer entry nonce offset run_id step_name step_id rpc_name data retries retry_delay born queue
-- OK attempt retries retry_delay data born | LOST | NOTFOUND | TERMINAL status | GONE | CONFLICT | SPENT owner | SUSPENDED | BUSY pttl
--- include clock entry mirror terminal owner drive since
local run, ctl, history, lock, stream, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, consumer, entry, nonce, offset, run_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local name, step_id, rpc, data, retries, delay = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]

local r = redis.call('HMGET', run, 'status', 'createdAt', 'since')
local status = r[1]
if not pending(stream, group, entry, consumer) then return { 'LOST' } end
if (ARGV[13] ~= '' and r[2] ~= ARGV[13]) or sent_before(r[3], entry) then
  drop(stream, group, entry)                               -- for a run that had this id before
  return { 'GONE' }
end
if not status then return { 'NOTFOUND' } end
local s = redis.call('HMGET', step, unpack(FIELDS))
if s[1] and s[5] ~= rpc then return { 'CONFLICT' } end
if not s[1] and TERMINAL[status] then return { 'TERMINAL', status } end
if TERMINAL[status] or s[1] == 'succeeded' or s[1] == 'failed' then
  drop(stream, group, entry)
  return { 'GONE' }
end
if s[1] == 'running' and s[3] == nonce then return { 'OK', tonumber(s[2]), s[7] or retries, s[8] or delay, s[6] or data, r[2] or '' } end
if status ~= 'running' then return { 'SUSPENDED' } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local pttl = busy(ctl, lock, x[2], '')
if pttl then return { 'BUSY', pttl } end
redis.call('LLEN', history)                              -- keys of another type are refused before any write
redis.call('LLEN', KEYS[7])
check_drive(KEYS[8], x)

local attempt = tonumber(s[2] or '1')
local was_open = s[1] == 'running'
local lease = was_open and redis.call('HGET', step, 'lease')
if lease and lease ~= entry and #redis.call('XPENDING', stream, group, lease, lease, 1) == 1 then
  drop(stream, group, entry)                               -- asked for twice: it is under way
  return { 'GONE' }
end
if was_open and attempt > tonumber(s[7] or retries) then
  drop(stream, group, entry)
  local at = clock(offset)
  redis.call('HSET', step, 'status', 'failed', 'error', LOST, 'updatedAt', at)
  moved(step, attempt, 'lost', 'error', LOST)
  redis.call('RPUSH', history, closed(s, at, name, 'lost', 'error', LOST, ',"final":true'))
  mirror(at)
  return { 'SPENT', drive(ctl, KEYS[8], run_id, x) }
end
if was_open then attempt = attempt + 1 end
local at = clock(offset)
if s[1] then
  redis.call('HSET', step, 'status', 'running', 'attemptCount', attempt, 'nonce', nonce, 'lease', entry, 'updatedAt', at)
else
  redis.call('HSET', step, 'stepId', step_id, 'status', 'running', 'rpcName', rpc, 'data', data, 'retries', retries,
    'retryDelay', delay, 'attemptCount', attempt, 'nonce', nonce, 'lease', entry, 'createdAt', at, 'updatedAt', at)
  redis.call('RPUSH', KEYS[7], name)
end
if ARGV[14] ~= '' then redis.call('HSET', step, 'queue', ARGV[14]) end
local began = opened(at, '"t":"step","name":' .. cjson.encode(name) .. ',"status":"running"' .. of_attempt(attempt))
if was_open then
  moved(step, attempt - 1, 'lost', 'error', LOST)
  redis.call('RPUSH', history, closed(s, at, name, 'lost', 'error', LOST, ''), began)
else
  redis.call('RPUSH', history, began)
end
moved(step, attempt, 'running')
mirror(at)
return { 'OK', attempt, s[7] or retries, s[8] or delay, s[6] or data, r[2] or '' }
