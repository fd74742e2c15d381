-- put_back: send an entry that was not worked on again, now or when its time comes.
-- When it is the token of the run that ctl belongs to, the token is named anew in the same step; what goes
-- back then drives the run on, though what came had started it: the run may end before it is read.
-- due: absolute ms, '+ms' from now, or '' for at once.
-- KEYS stream timers ctl
-- ARGV group entry offset due member run_id word...
-- OK | GONE
--- include clock terminal owner words
local group, entry, offset, due, member, run_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local words = words_from(7, 2)
-- Streams give out their ids each on its own: what drives no run is no token, whatever its id.
local drives = false
for k = 1, #words, 2 do
  drives = drives or (words[k] == 'type' and (words[k + 1] == 'run.start' or words[k + 1] == 'run.advance'))
end
local is_token = drives and redis.call('HGET', KEYS[3], 'token') == entry
if due ~= '' then redis.call('ZCARD', KEYS[2]) end       -- refuses a key of another type before any write
if drop(KEYS[1], group, entry) == 0 then return { 'GONE' } end
if due ~= '' then
  local at = string.sub(due, 1, 1) == '+' and clock(offset) + string.sub(due, 2) or due
  redis.call('ZADD', KEYS[2], at, member)
  return { 'OK' }
end
if is_token then
  local sent = words
  words = { 'type', 'run.advance', 'run_id', run_id }
  for k = 1, #sent, 2 do
    if sent[k] == 'tries' or sent[k] == 'unknown_since' then
      words[#words + 1], words[#words + 2] = sent[k], sent[k + 1]
    end
  end
end
local again = redis.call('XADD', KEYS[1], '*', unpack(words))
if is_token then redis.call('HSET', KEYS[3], 'token', again) end
return { 'OK' }
