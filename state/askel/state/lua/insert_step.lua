-- insert_step: a step in its first attempt, pending; the one that exists already is left as it is.
-- A list of one `insert`, answered as apply does.
-- KEYS run history lock step steps
-- ARGV holder offset nonce step_name step_id rpc_name data retries retry_delay from_step_name
-- OK owner at answer | ALREADY answer | NOTFOUND place | CONFLICT place | TERMINAL place status | LOCKLOST
--- include clock entry mirror terminal holder written
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, nonce, name, rpc = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]

local r = redis.call('HMGET', run, 'status', 'changes')
local status = r[1]
if not status then return { 'NOTFOUND', 0 } end
if was_written(r[2], nonce) then return { 'ALREADY', redis.call('HGETALL', step) } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local s = redis.call('HMGET', step, 'status', 'rpcName')
if s[1] then
  if (s[2] or '') ~= rpc then return { 'CONFLICT', 1 } end
  return { 'ALREADY', redis.call('HGETALL', step) }
end
if TERMINAL[status] then return { 'TERMINAL', 1, status } end
local at, words, n = clock(offset), {}, 0
local given = { 'stepId', ARGV[5], 'rpcName', rpc, 'data', ARGV[7], 'retries', ARGV[8], 'retryDelay', ARGV[9], 'fromStepName', ARGV[10] }
for k = 1, #given, 2 do
  if given[k + 1] ~= '' then words[n + 1], words[n + 2], n = given[k], given[k + 1], n + 2 end
end
redis.call('LLEN', KEYS[5])                              -- keys of another type are refused before any write
redis.call('RPUSH', history, step_entry(at, cjson.encode(name), 'pending', 1))
redis.call('HSET', step, 'status', 'pending', 'attemptCount', 1, 'createdAt', at, 'updatedAt', at, unpack(words))
moved(step, 1, 'pending')
mirror(at)
redis.call('RPUSH', KEYS[5], name)
redis.call('HSET', run, 'updatedAt', at, 'changes', with_write(r[2], nonce))
return { 'OK', '', at, '' }
