-- Makes the caller the owner of a run, under the run lock, and answers with what it must know.
-- x: owner, turn, robbed of the ctl hash. A second copy of the same call answers the same.
-- Owners are named consumer/number: a process that loads a run of its own again robs nobody.
local function activated(keys, owner, lease_ms, robbed_limit, x)
  local history = redis.call('LRANGE', keys.history, 0, -1)   -- refuses a key of another type before any write
  if x[1] ~= owner then
    local mine = string.match(owner, '^.*/') or owner
    local is_robbed = x[1] and string.sub(x[1], 1, #mine) ~= mine
    local robbed = tonumber(x[3] or '0') + (is_robbed and 1 or 0)
    if robbed > tonumber(robbed_limit) then return { 'POISON' } end
    redis.call('HSET', keys.ctl, 'owner', owner, 'robbed', robbed)
    redis.call('HINCRBY', keys.ctl, 'fence', 1)
  end
  redis.call('SET', keys.lock, owner, 'PX', lease_ms)
  local run = redis.call('HMGET', keys.run, 'workflow', 'status', 'input')
  return { 'OK', tonumber(x[2] or '0'), run[1], run[2], run[3], history }
end
