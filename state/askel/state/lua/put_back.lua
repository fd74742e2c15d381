-- put_back: send an entry that was not worked on again, now or when its time comes.
-- When it is the token of the run that ctl belongs to, the token is named anew in the same step.
-- due: absolute ms, '+ms' from now, or '' for at once.
-- KEYS stream timers ctl
-- ARGV group entry offset due member word...
-- OK | GONE
--- include clock terminal owner
local group, entry, offset, due, member = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local is_token = redis.call('HGET', KEYS[3], 'token') == entry
if drop(KEYS[1], group, entry) == 0 then return { 'GONE' } end
if due ~= '' then
  local at = string.sub(due, 1, 1) == '+' and clock(offset) + string.sub(due, 2) or due
  redis.call('ZADD', KEYS[2], at, member)
else
  local again = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 6))
  if is_token then redis.call('HSET', KEYS[3], 'token', again) end
end
return { 'OK' }
