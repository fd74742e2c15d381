-- A run's status changes: its hash, the indexes and the events stream.
local MAX_EVENTS = 10000

-- fields: further pairs for the run hash.
local function change(keys, run_id, from, to, at, seq, fields)
  local r = redis.call('HMGET', keys.run, 'createdAt', 'workflow')
  redis.call('HSET', keys.run, 'status', to, 'updatedAt', at, unpack(fields))
  index_move(keys.runs, run_id, r[2] or '', from, to, r[1] or at, TERMINAL[to] and at)
  redis.call('XADD', keys.events, 'MAXLEN', '~', MAX_EVENTS, '*', 'type', 'run', 'run_id', run_id, 'seq', seq, 'status', to, 'at', at)
end
