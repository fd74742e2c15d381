-- retry_step: the next attempt of a failed step; of two callers at once exactly one gets it.
-- KEYS run history lock step
-- ARGV holder offset step_name step_id target nonce
-- OK field... | ILLEGAL status | SPENT attempts | NOTFOUND | TERMINAL status | LOCKLOST
--- include clock entry owner holder
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, name, step_id, target, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local status = redis.call('HGET', run, 'status')
local s = redis.call('HMGET', step, 'status', 'attemptCount', 'stepId', 'retries', 'nonce')
if not status or s[3] ~= step_id then return { 'NOTFOUND' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
if s[5] == nonce then return { 'OK', redis.call('HGETALL', step) } end
if TERMINAL[status] then return { 'TERMINAL', status } end
if s[1] ~= 'failed' then return { 'ILLEGAL', s[1] } end
if s[4] and tonumber(s[2]) > tonumber(s[4]) then return { 'SPENT', tonumber(s[2]) } end
local at = clock(offset)
local attempt = tonumber(s[2]) + 1
redis.call('HSET', step, 'status', target, 'attemptCount', attempt, 'nonce', nonce, 'updatedAt', at)
redis.call('HDEL', step, 'result', 'error')
redis.call('RPUSH', history,
  opened(at, '"t":"step","name":' .. cjson.encode(name) .. ',"status":"' .. target .. '","attempt":' .. attempt))
return { 'OK', redis.call('HGETALL', step) }
