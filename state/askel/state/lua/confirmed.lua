-- confirmed: take the marks off runs whose state was confirmed, unless something happened since.
-- mark: the time that was read before the confirmation.
-- KEYS runs
-- ARGV run_id_and_mark...
-- OK count
local marks, count = KEYS[1] .. ':unconfirmed', 0
for k = 1, #ARGV, 2 do
  if redis.call('ZSCORE', marks, ARGV[k]) == ARGV[k + 1] then count = count + redis.call('ZREM', marks, ARGV[k]) end
end
return { 'OK', count }
