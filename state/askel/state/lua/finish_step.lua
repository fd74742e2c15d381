-- finish_step: record the outcome of a step's current attempt: a list of one `finish`, answered as apply does.
-- KEYS run ctl history lock step commands
-- ARGV holder offset nonce run_id step_name step_id allowed target outcome json
-- OK owner at answer | ALREADY answer | NOTFOUND place | CONFLICT place | ILLEGAL place status | TERMINAL place status | LOCKLOST
--- include clock entry mirror terminal holder written drive
local run, ctl, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local holder, offset, nonce, run_id, name, step_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local allowed, target, outcome, json = ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local r = redis.call('HMGET', run, 'status', 'changes')
local status = r[1]
if was_written(r[2], nonce) then return { 'ALREADY', 'ALREADY' } end
local s = redis.call('HMGET', step, unpack(FIELDS))
if not status or not s[1] or s[4] ~= step_id then return { 'NOTFOUND', status and 1 or 0 } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
if s[1] == target then
  if redis.call('HGET', step, outcome) == json then return { 'ALREADY', 'ALREADY' } end
  return { 'CONFLICT', 1 }
end
if TERMINAL[status] then return { 'TERMINAL', 1, status } end
if not string.find(allowed, ',' .. s[1] .. ',', 1, true) then return { 'ILLEGAL', 1, s[1] } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local at = clock(offset)
redis.call('HDEL', step, outcome == 'result' and 'error' or 'result')   -- accepted even when out of memory
redis.call('RPUSH', history, closed(s, at, name, target, outcome, json, target == 'failed' and last_attempt(s) or ''))
redis.call('HSET', step, 'status', target, outcome, json, 'updatedAt', at)
redis.call('HSET', run, 'changes', with_write(r[2], nonce))
moved(step, s[2], target, outcome, json)
mirror(at)
return { 'OK', drive(ctl, KEYS[6], run_id, x), at, '' }
