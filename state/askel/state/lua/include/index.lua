-- The indexes of runs, named from the key of them all: sorted sets by time of creation, the ended runs
-- of a workflow by time of their end. A status has no colon, so (status, workflow) is one key only.
local function by_status(runs, status, workflow)
  return runs .. ':status:' .. status, runs .. ':workflow-status:' .. status .. ':' .. workflow
end

local function index_new(runs, run_id, workflow, status, created)
  local one, two = by_status(runs, status, workflow)
  for _, key in ipairs({ runs, runs .. ':workflow:' .. workflow, one, two }) do redis.call('ZADD', key, created, run_id) end
  redis.call('ZADD', runs .. ':workflows', 0, workflow)
end

local function index_move(runs, run_id, workflow, from, to, created, ended)
  local one, two = by_status(runs, from, workflow)
  redis.call('ZREM', one, run_id)
  redis.call('ZREM', two, run_id)
  one, two = by_status(runs, to, workflow)
  redis.call('ZADD', one, created, run_id)
  redis.call('ZADD', two, created, run_id)
  if ended then redis.call('ZADD', runs .. ':ended:' .. workflow, ended, run_id) end
end
