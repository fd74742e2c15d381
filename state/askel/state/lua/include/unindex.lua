-- Takes a run out of every index; the name of its workflow goes with the last run.
local function forget_usage(runs, run_id, workflow)
  local usage = runs .. ':usage:' .. workflow
  local bytes = redis.call('HGET', usage, run_id)
  if not bytes then return end
  redis.call('HDEL', usage, run_id)
  redis.call('HINCRBY', usage, ':total', -tonumber(bytes))
end

local function forget_workflow(runs, workflow)
  if redis.call('EXISTS', runs .. ':workflow:' .. workflow) == 1 then return 0 end
  redis.call('UNLINK', runs .. ':usage:' .. workflow)
  return redis.call('ZREM', runs .. ':workflows', workflow)
end

local function unindex(runs, run_id, workflow)
  for _, status in ipairs(STATUSES) do
    local one, two = by_status(runs, status, workflow)
    redis.call('ZREM', one, run_id)
    redis.call('ZREM', two, run_id)
  end
  for _, key in ipairs({ runs, runs .. ':workflow:' .. workflow, runs .. ':ended:' .. workflow, runs .. ':unconfirmed' }) do
    redis.call('ZREM', key, run_id)
  end
  forget_usage(runs, run_id, workflow)
  forget_workflow(runs, workflow)
end
