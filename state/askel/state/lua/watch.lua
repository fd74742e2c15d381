-- watch: a page of the runs that are running, those of it that have no token; one watcher an interval.
-- The page begins where the last watcher, whoever it was, stopped. Runs that changed within quiet_ms are
-- passed over, and those that no daemon drives.
-- KEYS watch index run_stem ctl_stem
-- ARGV every_ms quiet_ms limit offset
-- OK looked_at {run_id...} | WAIT ms
--- include clock tolerant
local watch, index, run_stem, ctl_stem = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local every_ms, quiet_ms, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local now = tonumber(clock(ARGV[4]))
local x = redis.call('HMGET', watch, 'at', 'place')
local since = now - tonumber(x[1] or '0')                -- negative: the clock was set back
if since >= 0 and since < every_ms then return { 'WAIT', every_ms - since } end
local place = tonumber(x[2] or '0')
local batch = redis.call('ZRANGE', index, place, place + limit - 1)
redis.call('HSET', watch, 'at', string.format('%.0f', now), 'place', #batch < limit and 0 or place + limit)
local found = {}
for _, run_id in ipairs(batch) do
  local r = tolerant('HMGET', run_stem .. run_id, 'status', 'updatedAt', 'inline') or {}
  local changed = string.match(r[2] or '', '^%d+$')
  if r[1] == 'running' and r[3] ~= 'true' and changed and now - changed >= quiet_ms then
    local c = tolerant('HMGET', ctl_stem .. run_id, 'start', 'token') or {}
    if c[1] and not c[2] then found[#found + 1] = run_id end
  end
end
return { 'OK', #batch, found }
