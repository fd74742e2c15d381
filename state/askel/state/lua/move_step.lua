-- move_step: a step becomes scheduled or running: a list of one move, answered as apply does.
-- KEYS run history lock step
-- ARGV holder offset nonce step_name step_id target
-- OK owner at | ALREADY | NOTFOUND place | ILLEGAL place status | TERMINAL place status | LOCKLOST
--- include clock opening mirror terminal holder written moves
local run, history, lock, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, nonce, name, step_id, target = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local r = redis.call('HMGET', run, 'status', 'changes')
local status = r[1]
if not status then return { 'NOTFOUND', 0 } end
if was_written(r[2], nonce) then return { 'ALREADY' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
local s = redis.call('HMGET', step, 'status', 'attemptCount', 'stepId')
if not s[1] or s[3] ~= step_id then return { 'NOTFOUND', 1 } end
if s[1] == target then return { 'ALREADY' } end
if TERMINAL[status] then return { 'TERMINAL', 1, status } end
if not string.find(sources(target), ',' .. s[1] .. ',', 1, true) then return { 'ILLEGAL', 1, s[1] } end
local at = clock(offset)
redis.call('RPUSH', history, step_entry(at, cjson.encode(name), target, s[2]))   -- first: refused, nothing is written
redis.call('HSET', step, 'status', target, 'updatedAt', at)
redis.call('HSET', run, 'changes', with_write(r[2], nonce))
moved(step, s[2], target)
mirror(at)
return { 'OK', '', at }
