-- expired: which ended runs of a workflow its policy gives up, the longest ended first; changes nothing.
-- Skipped are those at the front that could not be deleted just now.
-- An empty ttl_ms, max_runs or max_bytes is no bound. Bytes are those that measure_runs has counted.
-- KEYS runs
-- ARGV offset workflow ttl_ms max_runs max_bytes skip limit
-- OK {run_id...}
--- include clock
local offset, workflow, ttl_ms, max_runs, max_bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local skip, limit = tonumber(ARGV[6]), tonumber(ARGV[7])
local ended, usage = KEYS[1] .. ':ended:' .. workflow, KEYS[1] .. ':usage:' .. workflow

local count = 0
if ttl_ms ~= '' then count = redis.call('ZCOUNT', ended, '-inf', string.format('%.0f', clock(offset) - ttl_ms)) end
if max_runs ~= '' then count = math.max(count, redis.call('ZCARD', ended) - max_runs) end
local over = max_bytes ~= '' and (redis.call('HGET', usage, ':total') or 0) - max_bytes or 0
if over > 0 then
  for k, run_id in ipairs(redis.call('ZRANGE', ended, 0, skip + limit - 1)) do
    if over <= 0 then break end
    over, count = over - (redis.call('HGET', usage, run_id) or 0), math.max(count, k)
  end
end
if count <= skip then return { 'OK', {} } end
return { 'OK', redis.call('ZRANGE', ended, skip, math.min(count, skip + limit) - 1) }
