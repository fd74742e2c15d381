-- fire: move due timers to their streams; whoever removes a timer sends its command, nobody else.
-- KEYS timers stream...
-- ARGV count {member stream nwords word...}...
-- OK fired
for k = 2, #KEYS do redis.call('XLEN', KEYS[k]) end    -- keys of another type are refused before any write
local i, fired = 2, 0
for _ = 1, tonumber(ARGV[1]) do
  local last = i + 2 + tonumber(ARGV[i + 2])
  if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[tonumber(ARGV[i + 1])], '*', unpack(ARGV, i + 3, last))
    fired = fired + 1
  end
  i = last + 1
end
return { 'OK', fired }
