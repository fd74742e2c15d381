-- update_run: an embedding program moves a run to another status.
-- KEYS run ctl history lock commands events runs
-- ARGV holder offset run_id allowed target output error body
-- OK owner | ALREADY | ILLEGAL status | NOTFOUND | LOCKLOST
--- include clock entry owner holder drive index change
local run, ctl, history, lock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, run_id, allowed, target = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local output, error_json, body = ARGV[6], ARGV[7], ARGV[8]

local r = redis.call('HMGET', run, 'status', 'output', 'error')
local status = r[1]
if not status then return { 'NOTFOUND' } end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
if status == target then
  local same = (output == '' or r[2] == output) and (error_json == '' or r[3] == error_json)
  return { same and 'ALREADY' or 'ILLEGAL', status }
end
if not string.find(allowed, ',' .. status .. ',', 1, true) then return { 'ILLEGAL', status } end
local x = redis.call('HMGET', ctl, unpack(WAKE))
local at = clock(offset)
local fields = {}
if output ~= '' then fields[#fields + 1] = 'output' fields[#fields + 1] = output end
if error_json ~= '' then fields[#fields + 1] = 'error' fields[#fields + 1] = error_json end
if TERMINAL[target] then redis.call('HDEL', ctl, 'nudged') end    -- accepted even when out of memory
local seq = redis.call('RPUSH', history, opened(at, body))
if status ~= 'running' and error_json == '' then redis.call('HDEL', run, 'error') end
change({ run = run, events = KEYS[6], runs = KEYS[7] }, run_id, status, target, at, seq, fields)
if TERMINAL[target] then return { 'OK', x[2] or '' } end
return { 'OK', drive(ctl, KEYS[5], run_id, x) }
