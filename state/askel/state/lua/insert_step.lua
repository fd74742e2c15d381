-- insert_step: a step in its first attempt, pending; the one that exists already is left as it is.
-- A list of one `insert`, answered as apply does.
-- KEYS run history lock step steps
-- ARGV holder offset step_name step_id rpc_name data retries retry_delay from_step_name
-- OK owner at answer | ALREADY answer | NOTFOUND place | CONFLICT place | TERMINAL place status | LOCKLOST
--- include clock entry mirror terminal holder
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, name, rpc = ARGV[1], ARGV[2], ARGV[3], ARGV[5]

local status = redis.call('HGET', run, 'status')
if not status then return { 'NOTFOUND', 0 } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local s = redis.call('HMGET', step, 'status', 'rpcName')
if s[1] then
  if (s[2] or '') ~= rpc then return { 'CONFLICT', 1 } end
  return { 'ALREADY', redis.call('HGETALL', step) }
end
if TERMINAL[status] then return { 'TERMINAL', 1, status } end
local at, words, n = clock(offset), {}, 0
local given = { 'stepId', ARGV[4], 'rpcName', rpc, 'data', ARGV[6], 'retries', ARGV[7], 'retryDelay', ARGV[8], 'fromStepName', ARGV[9] }
for k = 1, #given, 2 do
  if given[k + 1] ~= '' then words[n + 1], words[n + 2], n = given[k], given[k + 1], n + 2 end
end
redis.call('HSET', step, 'status', 'pending', 'attemptCount', 1, 'createdAt', at, 'updatedAt', at, unpack(words))
moved(step, 1, 'pending')
mirror(at)
redis.call('RPUSH', KEYS[5], name)
redis.call('RPUSH', history, step_entry(at, cjson.encode(name), 'pending', 1))
redis.call('HSET', run, 'updatedAt', at)
return { 'OK', '', at, '' }
