-- What a list of changes comes to: the writes. The outcome of a step that was there comes first: that
-- Redis accepts even out of memory.
if lands then
  for k = 7, #KEYS do
    local s = steps[k]
    if s and s.outcome and not s.first then redis.call('HDEL', s.key, s.outcome == 'result' and 'error' or 'result') end
  end
end
local seq = redis.call('RPUSH', history, unpack(entries))
if #names > 0 then redis.call('RPUSH', KEYS[6], unpack(names)) end
for k = 7, #KEYS do
  local s = steps[k]
  if s and s.first then
    redis.call('HSET', s.key, 'status', s[1], 'attemptCount', s[2], 'createdAt', at, 'updatedAt', at,
      s.outcome or 'updatedAt', s.json or at, 'stepId', s[4], 'data', s[6], unpack(ARGV, s.first, s.last))
  elseif s and s.touched then
    redis.call('HSET', s.key, 'status', s[1], s.outcome or 'updatedAt', s.json or at, 'updatedAt', at)
  end
  if s and s.more then redis.call('HSET', s.key, unpack(s.more)) end
  if s and s.cleared then
    if not s[10] then redis.call('HDEL', s.key, 'branchTaken') end
    if not s[11] then redis.call('HDEL', s.key, 'childRunId') end
    if not s.outcome then redis.call('HDEL', s.key, 'result', 'error') end
  end
end
mirror(at)
if vars then
  for name, json in pairs(vars.values) do redis.call('HSET', vars.key, name, json) end
end
