-- finish_step: record the outcome of a step's current attempt: a list of one, answered as apply does.
-- KEYS run ctl history lock step commands
-- ARGV holder offset nonce run_id step_name step_id target json
-- OK owner at | ALREADY | NOTFOUND place | CONFLICT place | ILLEGAL place status | TERMINAL place status | LOCKLOST
--- include clock mirror terminal holder written moves fields closing
local run, ctl, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local holder, offset, nonce, run_id, name, step_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local target, json = ARGV[7], ARGV[8]
local outcome = target == 'failed' and 'error' or 'result'

local r = redis.call('HMGET', run, 'status', 'changes')
local status = r[1]
if not status then return { 'NOTFOUND', 0 } end
if was_written(r[2], nonce) then return { 'ALREADY' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local s = redis.call('HMGET', step, unpack(FIELDS))
if not s[1] or s[4] ~= step_id then return { 'NOTFOUND', 1 } end
if s[1] == target then
  if redis.call('HGET', step, outcome) == json then return { 'ALREADY' } end
  return { 'CONFLICT', 1 }
end
if TERMINAL[status] then return { 'TERMINAL', 1, status } end
if not string.find(sources(target), ',' .. s[1] .. ',', 1, true) then return { 'ILLEGAL', 1, s[1] } end
redis.call('LLEN', history)                              -- keys of another type are refused before any write
local owner, at = redis.call('HGET', ctl, 'start') or '', clock(offset)
if owner ~= '' then redis.call('XLEN', KEYS[6]) end
redis.call('HDEL', step, outcome == 'result' and 'error' or 'result')   -- accepted even when out of memory
redis.call('RPUSH', history, closed(s, at, name, target, outcome, json, target == 'failed' and last_attempt(s) or ''))
redis.call('HSET', step, 'status', target, outcome, json, 'updatedAt', at)
redis.call('HSET', run, 'changes', with_write(r[2], nonce))
moved(step, s[2], target, outcome, json)
mirror(at)
if owner ~= '' then
--- include drive
  owner = drive(ctl, KEYS[6], run_id, redis.call('HMGET', ctl, unpack(WAKE)))
end
return { 'OK', owner, at }
