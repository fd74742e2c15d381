-- A run's status changes: its hash, the index of its status and the events stream.
local MAX_EVENTS = 10000

-- fields: further pairs for the run hash. from, to: the index keys of the statuses.
local function change(keys, from, to, run_id, status, at, seq, fields)
  redis.call('HSET', keys.run, 'status', status, 'updatedAt', at, unpack(fields))
  if from ~= to then
    redis.call('ZREM', from, run_id)
    redis.call('ZADD', to, redis.call('HGET', keys.run, 'createdAt') or at, run_id)
  end
  redis.call('XADD', keys.events, 'MAXLEN', '~', MAX_EVENTS, '*', 'type', 'run', 'run_id', run_id, 'seq', seq, 'status', status, 'at', at)
end
