-- A new run: hash, indexes, first history entry, event. Times are one and the same instant.
-- Before: what is left of a run of this id that another program deleted. stems: see succeed.
local function clear_place(keys, stems, run_id)
  local left = redis.call('EXISTS', keys.run, keys.history, stems[2] .. run_id, stems[4] .. run_id, stems[5] .. run_id)
  if left == 0 then return end
  for _, name in ipairs(redis.call('LRANGE', stems[4] .. run_id, 0, -1)) do
    forget_past(stems[6] .. run_id .. ':' .. name)
    redis.call('UNLINK', stems[6] .. run_id .. ':' .. name)
  end
  local fence = redis.call('HGET', stems[2] .. run_id, 'fence')
  for k = 1, 5 do redis.call('UNLINK', stems[k] .. run_id) end
  if fence then redis.call('HSET', stems[2] .. run_id, 'fence', fence) end
end

-- Refuses keys of another type before any write. r: status and workflow of a run that gives way, or nothing.
local function check_new(keys, stems, run_id, workflow, r)
  redis.call('XLEN', keys.events)
  check_index(keys.runs, workflow, 'running')
  local names = redis.call('LRANGE', stems[4] .. run_id, 0, -1)
  if not r[1] then return end
  check_index(keys.runs, r[2] or '', r[1], 'cancelled')
  redis.call('HLEN', keys.runs .. ':usage:' .. (r[2] or ''))
  for _, name in ipairs(names) do redis.call('HLEN', stems[6] .. run_id .. ':' .. name) end
end

local function create(keys, run_id, workflow, input, at, fields, body)
  redis.call('HSET', keys.run, 'id', run_id, 'workflow', workflow, 'status', 'running', 'input', input, 'createdAt', at, 'updatedAt', at, unpack(fields))
  index_new(keys.runs, run_id, workflow, 'running', at)
  for k = 1, #fields, 2 do
    if fields[k] == 'durability' then to_confirm(keys.runs, run_id, at) end
  end
  redis.call('RPUSH', keys.history, opened(at, body))
  redis.call('XADD', keys.events, 'MAXLEN', '~', 10000, '*', 'type', 'run', 'run_id', run_id, 'seq', 1, 'status', 'running', 'at', at)
end
