-- finish_step: record the outcome of a step's current attempt.
-- KEYS run ctl history lock step commands
-- ARGV holder offset run_id step_name step_id allowed target outcome json
-- OK owner | ALREADY | ILLEGAL status | CONFLICT | NOTFOUND | TERMINAL status | LOCKLOST
--- include clock entry owner holder drive
local run, ctl, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local holder, offset, run_id, name, step_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local allowed, target, outcome, json = ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local status = redis.call('HGET', run, 'status')
local s = redis.call('HMGET', step, unpack(FIELDS))
if not status or s[4] ~= step_id then return { 'NOTFOUND' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
if s[1] == target then
  return { redis.call('HGET', step, outcome) == json and 'ALREADY' or 'CONFLICT' }
end
if TERMINAL[status] then return { 'TERMINAL', status } end
if not string.find(allowed, ',' .. s[1] .. ',', 1, true) then return { 'ILLEGAL', s[1] } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local at = clock(offset)
redis.call('HDEL', step, 'result', 'error')
redis.call('HSET', step, 'status', target, outcome, json, 'updatedAt', at)
local final = target == 'failed' and s[7] and tonumber(s[2]) > tonumber(s[7]) and ',"final":true' or ''
redis.call('RPUSH', history, closed(s, at, name, target, outcome, json, final))
return { 'OK', drive(ctl, KEYS[6], run_id, x) }
