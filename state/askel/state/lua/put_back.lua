-- put_back: send an entry that was not worked on again, now or when its time comes.
-- When it is the token of the run that ctl belongs to, the token is named anew in the same step; what goes
-- back then drives the run on, though what came had started it: the run may end before it is read.
-- due: absolute ms, '+ms' from now, or '' for at once.
-- KEYS stream timers ctl
-- ARGV group entry offset due member run_id word...
-- OK | GONE
--- include clock terminal owner
local group, entry, offset, due, member, run_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- Streams give out their ids each on its own: what drives no run is no token, whatever its id.
local drives = false
for k = 7, #ARGV, 2 do
  drives = drives or (ARGV[k] == 'type' and (ARGV[k + 1] == 'run.start' or ARGV[k + 1] == 'run.advance'))
end
local is_token = drives and redis.call('HGET', KEYS[3], 'token') == entry
if due ~= '' then redis.call('ZCARD', KEYS[2]) end       -- refuses a key of another type before any write
if drop(KEYS[1], group, entry) == 0 then return { 'GONE' } end
if due ~= '' then
  local at = string.sub(due, 1, 1) == '+' and clock(offset) + string.sub(due, 2) or due
  redis.call('ZADD', KEYS[2], at, member)
  return { 'OK' }
end
local words = { unpack(ARGV, 7) }
if is_token then
  words = { 'type', 'run.advance', 'run_id', run_id }
  for k = 7, #ARGV, 2 do
    if ARGV[k] == 'tries' or ARGV[k] == 'unknown_since' then
      words[#words + 1], words[#words + 2] = ARGV[k], ARGV[k + 1]
    end
  end
end
local again = redis.call('XADD', KEYS[1], '*', unpack(words))
if is_token then redis.call('HSET', KEYS[3], 'token', again) end
return { 'OK' }
