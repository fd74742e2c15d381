-- Gives a run's place to its next generation: the run so far goes on, ended, under {run_id}.g{n}.
-- stems: what the keys of runs begin with: run ctl history steps run-state step step-lock.
--- include policy command
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
    redis.call('DEL', stems[7] .. run_id .. ':' .. name)
    keep(stems[6], run_id .. ':' .. name, former .. ':' .. name)
    local id = redis.call('HGET', step, 'stepId') or ''
    redis.call('HSET', step, 'stepId', former .. ':' .. name .. ':' .. (string.match(id, '.*:(.*)') or ''))
    rename_past(step, id)
  end
end

-- What made or drove a generation before this one: entries, nonces and ids of commands, the last of them.
local MADE = 1024                                        -- characters

-- The fence goes on, and applied calls stay known: what made or drove the run, who gave back its lock,
-- and the ids of commands, those of one generation.
local function keep_control(stem, run_id, former, nonce, command_id)
  local flat, was, makers = redis.call('HGETALL', stem .. run_id), ' ', { nonce or nil }
  if command_id ~= '' then makers[#makers + 1] = word_of(command_id) end
  keep(stem, run_id, former)
  redis.call('HDEL', stem .. former, 'token', 'owner')
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if name == 'was' then was = value end
    if name == 'token' or name == 'start' then makers[#makers + 1] = value end
    if name == 'fence' or name == 'released' then redis.call('HSET', stem .. run_id, name, value) end
    if string.sub(name, 1, 3) == 'id:' then redis.call('HSET', stem .. run_id, 'old:' .. string.sub(name, 4), '1') end
  end
  for _, maker in ipairs(makers) do was = was .. maker .. ' ' end
  if #makers > 0 then redis.call('HSET', stem .. run_id, 'was', string.sub(was, -MADE)) end
end

-- Returns the fields of the new generation's hash, and what its first history entry says.
local function succeed(keys, stems, run_id, status, workflow, at)
  if not TERMINAL[status] then
    local seq = redis.call('RPUSH', keys.history, opened(at, '"t":"run","status":"cancelled","reason":"its next generation was asked for"'))
    change(keys, run_id, status, 'cancelled', at, seq, {})
    status = 'cancelled'
  end
  local n, former = free_place(stems[1], run_id)
  local r = redis.call('HMGET', keys.run, 'createdAt', 'updatedAt', 'nonce', 'changes')
  -- First what a server without memory refuses: this begins something.
  index_new(keys.runs, former, workflow, status, string.match(r[1] or '', '^%d+$') or at)
  redis.call('ZADD', keys.runs .. ':ended:' .. workflow, string.match(r[2] or '', '^%d+$') or at, former)
  local mark = redis.call('ZSCORE', keys.runs .. ':unconfirmed', run_id)
  if mark then redis.call('ZADD', keys.runs .. ':unconfirmed', mark, former) end
  unindex(keys.runs, run_id, workflow)
  keep_steps(stems, run_id, former)
  keep_control(stems[2], run_id, former, r[3], command_of(keys.history))
  for _, k in ipairs({ 3, 4, 5, 1 }) do keep(stems[k], run_id, former) end
  if keys.lock then redis.call('DEL', keys.lock) end       -- but for that of whoever makes the generation
  redis.call('HSET', stems[1] .. former, 'id', former)
  local fields = { 'generation', n + 1, 'previous', former }
  if r[4] then fields[5], fields[6] = 'changes', r[4] end   -- a late copy of a write to the former changes nothing
  return fields, ',"generation":' .. (n + 1) .. ',"previous":"' .. former .. '"'
end
