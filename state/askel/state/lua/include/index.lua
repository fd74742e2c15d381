-- The indexes of runs, named from the key of them all: sorted sets by time of creation, the ended runs
-- of a workflow by time of their end. A status has no colon, so (status, workflow) is one key only.
local function by_status(runs, status, workflow)
  return runs .. ':status:' .. status, runs .. ':workflow-status:' .. status .. ':' .. workflow
end

-- Refuses indexes of another type before any write to those of a workflow and of the statuses given.
local function check_index(runs, workflow, ...)
  for _, part in ipairs({ '', ':workflows', ':unconfirmed', ':workflow:' .. workflow, ':ended:' .. workflow }) do
    redis.call('ZCARD', runs .. part)
  end
  for _, status in ipairs({ ... }) do
    local one, two = by_status(runs, status, workflow)
    redis.call('ZCARD', one)
    redis.call('ZCARD', two)
  end
end

local function index_new(runs, run_id, workflow, status, created)
  local one, two = by_status(runs, status, workflow)
  for _, key in ipairs({ runs, runs .. ':workflow:' .. workflow, one, two }) do redis.call('ZADD', key, created, run_id) end
  redis.call('ZADD', runs .. ':workflows', 0, workflow)
end

-- What happened to a run of a higher durability is to be confirmed by replicas or the disk.
-- A mark that is there is never set to the same time: who takes it off knows which one it is.
local function to_confirm(runs, run_id, at)
  local marks = runs .. ':unconfirmed'
  local was = tonumber(redis.call('ZSCORE', marks, run_id) or '0')
  redis.call('ZADD', marks, string.format('%.0f', math.max(tonumber(at), was + 1)), run_id)
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
