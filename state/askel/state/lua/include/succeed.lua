-- Gives a run's place to its next generation: the run so far goes on, ended, under {run_id}.g{n}.
-- stems: what the keys of runs begin with: run ctl history steps run-state step. Empty without a policy.
local function keep(stem, from, to)
  if redis.call('EXISTS', stem .. from) == 1 then redis.call('RENAME', stem .. from, stem .. to) end
end

local function free_place(stem, run_id)
  local n = tonumber(redis.call('HGET', stem .. run_id, 'generation') or '1')
  while redis.call('EXISTS', stem .. run_id .. '.g' .. n) == 1 do n = n + 1 end
  return n, run_id .. '.g' .. n
end

local function keep_steps(stems, run_id, former)
  for _, name in ipairs(redis.call('LRANGE', stems[4] .. run_id, 0, -1)) do
    local step = stems[6] .. former .. ':' .. name
    keep(stems[6], run_id .. ':' .. name, former .. ':' .. name)
    local id = redis.call('HGET', step, 'stepId') or ''
    redis.call('HSET', step, 'stepId', former .. ':' .. name .. ':' .. (string.match(id, '.*:(.*)') or ''))
    rename_past(step, id)
  end
end

-- The fence goes on, and applied calls stay known: ids of commands, the entries that began or drove the
-- run, the nonce of the call that made it, who gave back its lock.
local function keep_control(stem, run_id, former, nonce)
  local flat, words = redis.call('HGETALL', stem .. run_id), nonce and { 'was:' .. nonce, '1' } or {}
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if name == 'token' or name == 'start' then name, value = 'was:' .. value, '1' end
    if name == 'fence' or name == 'released' or string.sub(name, 1, 3) == 'id:' or string.sub(name, 1, 4) == 'was:' then
      words[#words + 1] = name
      words[#words + 1] = value
    end
  end
  keep(stem, run_id, former)
  redis.call('HDEL', stem .. former, 'token', 'owner')
  if #words > 0 then redis.call('HSET', stem .. run_id, unpack(words)) end
end

-- What may take the place of a run with this status: its next generation, where the policy says so.
local function gives_way(policy, status)
  return policy == 'terminate-existing' or (policy == 'after-terminal' and TERMINAL[status])
end

-- Returns the fields of the new generation's hash, and what its first history entry says.
local function succeed(keys, stems, run_id, status, workflow, at)
  if not TERMINAL[status] then
    local seq = redis.call('RPUSH', keys.history, opened(at, '"t":"run","status":"cancelled","reason":"its next generation was asked for"'))
    redis.call('HDEL', keys.run, 'error')                -- that of the status it leaves
    change(keys, run_id, status, 'cancelled', at, seq, {})
    status = 'cancelled'
  end
  local n, former = free_place(stems[1], run_id)
  local r = redis.call('HMGET', keys.run, 'createdAt', 'updatedAt', 'nonce')
  unindex(keys.runs, run_id, workflow)
  keep_steps(stems, run_id, former)
  keep_control(stems[2], run_id, former, r[3])
  for _, k in ipairs({ 3, 4, 5, 1 }) do keep(stems[k], run_id, former) end
  redis.call('DEL', keys.lock)
  redis.call('HSET', stems[1] .. former, 'id', former)
  index_new(keys.runs, former, workflow, status, r[1] or at)
  redis.call('ZADD', keys.runs .. ':ended:' .. workflow, r[2] or at, former)
  return { 'generation', n + 1, 'previous', former }, ',"generation":' .. (n + 1) .. ',"previous":"' .. former .. '"'
end
