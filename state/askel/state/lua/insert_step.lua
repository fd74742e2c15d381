-- insert_step: a step in its first attempt, pending; the one that exists already is left as it is.
-- A list of one `insert`, answered as apply does. Where the step has a rpcName, it is the first field.
-- KEYS run history lock step steps
-- ARGV holder offset nonce step_name step_id data field...
-- OK owner at | ALREADY answer | NOTFOUND place | CONFLICT place | TERMINAL place status | LOCKLOST
--- include clock opening mirror terminal holder written
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, nonce, name, step_id, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local r = redis.call('HMGET', run, 'status', 'changes')
local status = r[1]
if not status then return { 'NOTFOUND', 0 } end
if was_written(r[2], nonce) then return { 'ALREADY', redis.call('HGETALL', step) } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local s = redis.call('HMGET', step, 'status', 'rpcName')
if s[1] then
  local field, rpc = unpack(ARGV, 7, 8)
  if s[2] ~= (field == 'rpcName' and rpc) then return { 'CONFLICT', 1 } end
  return { 'ALREADY', redis.call('HGETALL', step) }
end
if TERMINAL[status] then return { 'TERMINAL', 1, status } end
redis.call('LLEN', KEYS[5])                              -- keys of another type are refused before any write
local at = clock(offset)
redis.call('RPUSH', history, step_entry(at, cjson.encode(name), 'pending', 1))
redis.call('HSET', step, 'status', 'pending', 'attemptCount', 1, 'createdAt', at, 'updatedAt', at,
  'stepId', step_id, 'data', data, unpack(ARGV, 7))
moved(step, 1, 'pending')
mirror(at)
redis.call('RPUSH', KEYS[5], name)
redis.call('HSET', run, 'updatedAt', at, 'changes', with_write(r[2], nonce))
return { 'OK', '', at }
