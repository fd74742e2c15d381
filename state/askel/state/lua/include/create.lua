-- A new run: hash, indexes, first history entry, event. Times are one and the same instant.
local function create(keys, run_id, workflow, input, at, fields, body)
  redis.call('HSET', keys.run, 'id', run_id, 'workflow', workflow, 'status', 'running', 'input', input, 'createdAt', at, 'updatedAt', at, unpack(fields))
  index_new(keys.runs, run_id, workflow, 'running', at)
  redis.call('RPUSH', keys.history, opened(at, body))
  redis.call('XADD', keys.events, 'MAXLEN', '~', 10000, '*', 'type', 'run', 'run_id', run_id, 'seq', 1, 'status', 'running', 'at', at)
end
