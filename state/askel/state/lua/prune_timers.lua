-- prune_timers: remove timers of runs that have ended, are gone, or are not the one they were set for.
-- KEYS timers stem
-- ARGV timer...
-- timer: member run_id born
-- OK removed
--- include terminal tolerant
local timers, stem, removed = KEYS[1], KEYS[2], 0
for i = 1, #ARGV, 3 do
  local r = tolerant('HMGET', stem .. ARGV[i + 1], 'status', 'createdAt')
  if r and (not r[1] or TERMINAL[r[1]] or r[2] ~= ARGV[i + 2]) then
    removed = removed + redis.call('ZREM', timers, ARGV[i])
  end
end
return { 'OK', removed }
