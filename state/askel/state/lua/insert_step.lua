-- insert_step: a step in its first attempt, pending; the one that exists already is left as it is.
-- KEYS run history lock step steps
-- ARGV holder offset step_name rpc_name body field...
-- OK field... | EXISTS field... | CONFLICT | NOTFOUND | TERMINAL status | LOCKLOST
--- include clock entry owner holder
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, name, rpc, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local status = redis.call('HGET', run, 'status')
if not status then return { 'NOTFOUND' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local s = redis.call('HMGET', step, 'status', 'rpcName')
if s[1] then
  if (s[2] or '') ~= rpc then return { 'CONFLICT' } end
  return { 'EXISTS', redis.call('HGETALL', step) }
end
if TERMINAL[status] then return { 'TERMINAL', status } end
local at = clock(offset)
redis.call('HSET', step, 'status', 'pending', 'attemptCount', 1, 'createdAt', at, 'updatedAt', at, unpack(ARGV, 6))
redis.call('RPUSH', KEYS[5], name)
redis.call('RPUSH', history, opened(at, body))
redis.call('HSET', run, 'updatedAt', at)
return { 'OK', redis.call('HGETALL', step) }
