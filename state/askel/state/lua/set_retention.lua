-- set_retention: keep the retention policy of a workflow, or forget it where none is given.
-- KEYS retention
-- ARGV name policy
-- OK | ALREADY
local retention, name, policy = KEYS[1], ARGV[1], ARGV[2]

local current = redis.call('HGET', retention, name) or ''
if current == policy then return { 'ALREADY' } end
if policy == '' then redis.call('HDEL', retention, name) else redis.call('HSET', retention, name, policy) end
return { 'OK' }
