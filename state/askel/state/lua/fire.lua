-- fire: move timers to their streams; whoever removes a timer sends its command, nobody else.
-- One that was armed again since it was found due is left where it is, until it is due.
-- KEYS timers stream...
-- ARGV offset count {member stream nwords word...}...
-- OK fired
--- include clock
for k = 2, #KEYS do redis.call('XLEN', KEYS[k]) end    -- keys of another type are refused before any write
local i, fired, now = 3, 0, tonumber(clock(ARGV[1]))
for _ = 1, tonumber(ARGV[2]) do
  local last = i + 2 + tonumber(ARGV[i + 2])
  local due = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if due and tonumber(due) <= now then
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('XADD', KEYS[tonumber(ARGV[i + 1])], '*', unpack(ARGV, i + 3, last))
    fired = fired + 1
  end
  i = last + 1
end
return { 'OK', fired }
