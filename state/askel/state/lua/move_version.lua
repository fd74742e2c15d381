-- move_version: a stored workflow definition becomes a draft, active or declined.
-- KEYS version
-- ARGV status
-- OK | ALREADY | NOTFOUND
local version, status = KEYS[1], ARGV[1]

local v = redis.call('HMGET', version, 'graph', 'status')
if not v[1] then return { 'NOTFOUND' } end
if v[2] == status then return { 'ALREADY' } end
redis.call('HSET', version, 'status', status)
return { 'OK' }
