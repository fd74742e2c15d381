-- measure_runs: count the bytes of ended runs of a workflow, each run once, about most keys in one call.
-- Every field counts: a sample would miss the one that is large. The usage hash has a field for each run,
-- one for their sum (:total) and one for the run reached (:place).
-- KEYS runs run_stem ctl_stem history_stem steps_stem run_state_stem step_stem
-- ARGV workflow most
-- OK measured unmeasured
local runs, steps_stem, step_stem = KEYS[1], KEYS[5], KEYS[7]
local workflow, most = ARGV[1], tonumber(ARGV[2])
local ended, usage = runs .. ':ended:' .. workflow, runs .. ':usage:' .. workflow
local keys = 0

local function bytes_of(key)
  keys = keys + 1
  return redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0
end

local function measured(run_id)
  local bytes = 0
  for i = 2, 6 do bytes = bytes + bytes_of(KEYS[i] .. run_id) end
  local is_list = redis.call('TYPE', steps_stem .. run_id).ok == 'list'
  for _, name in ipairs(is_list and redis.call('LRANGE', steps_stem .. run_id, 0, -1) or {}) do
    bytes = bytes + bytes_of(step_stem .. run_id .. ':' .. name)
  end
  return bytes
end

local place = redis.call('HGET', usage, ':place')
local left = redis.call('ZCARD', ended) - math.max(redis.call('HLEN', usage) - 2, 0)
if left <= 0 then return { 'OK', 0, 0 } end
local rank = place and redis.call('ZRANK', ended, place)
local batch = redis.call('ZRANGE', ended, rank and rank + 1 or 0, (rank or 0) + most)
local sizes, total, count = {}, 0, 0
for _, run_id in ipairs(batch) do
  place = run_id
  if redis.call('HEXISTS', usage, run_id) == 0 then
    local bytes = measured(run_id)
    sizes[run_id], total, count = bytes, total + bytes, count + 1
  else
    keys = keys + 1
  end
  if keys >= most then break end
end
redis.call('HDEL', usage, ':place')                      -- accepted even when out of memory
redis.call('HSET', usage, ':place', #batch > 0 and place or '')   -- at the end it begins anew
redis.call('HINCRBY', usage, ':total', total)
for run_id, bytes in pairs(sizes) do redis.call('HSET', usage, run_id, bytes) end
return { 'OK', count, left - count }
