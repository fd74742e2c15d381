-- move_step: a step becomes scheduled or running.
-- KEYS run history lock step
-- ARGV holder offset step_name step_id allowed target
-- OK | ALREADY | ILLEGAL status | NOTFOUND | TERMINAL status | LOCKLOST
--- include clock entry owner holder
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, name, step_id, allowed, target = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local status = redis.call('HGET', run, 'status')
local s = redis.call('HMGET', step, 'status', 'attemptCount', 'stepId')
if not status or s[3] ~= step_id then return { 'NOTFOUND' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
if s[1] == target then return { 'ALREADY' } end
if TERMINAL[status] then return { 'TERMINAL', status } end
if not string.find(allowed, ',' .. s[1] .. ',', 1, true) then return { 'ILLEGAL', s[1] } end
local at = clock(offset)
redis.call('HSET', step, 'status', target, 'updatedAt', at)
redis.call('RPUSH', history,
  opened(at, '"t":"step","name":' .. cjson.encode(name) .. ',"status":"' .. target .. '","attempt":' .. s[2]))
return { 'OK' }
