-- A run's status changes: its hash, the indexes and the events stream.
local MAX_EVENTS = 10000

-- Refuses keys of another type before any write.
local function check_change(keys, from, to)
  redis.call('XLEN', keys.events)
  check_index(keys.runs, redis.call('HGET', keys.run, 'workflow') or '', from, to)
end

-- fields: further pairs for the run hash. The error of a status that is left goes with it.
local function change(keys, run_id, from, to, at, seq, fields)
  local r = redis.call('HMGET', keys.run, 'createdAt', 'workflow', 'durability')
  local created = string.match(r[1] or '', '^%d+$') or at -- others may write times that are no numbers
  local has_error = false
  for k = 1, #fields, 2 do has_error = has_error or fields[k] == 'error' end
  if from ~= 'running' and not has_error then redis.call('HDEL', keys.run, 'error') end
  redis.call('HSET', keys.run, 'status', to, 'updatedAt', at, unpack(fields))
  index_move(keys.runs, run_id, r[2] or '', from, to, created, TERMINAL[to] and at)
  if r[3] and TERMINAL[to] then to_confirm(keys.runs, run_id, at) end
  redis.call('XADD', keys.events, 'MAXLEN', '~', MAX_EVENTS, '*', 'type', 'run', 'run_id', run_id, 'seq', seq, 'status', to, 'at', at)
end
