-- remake_tokens: runs whose token is gone from every stream get another, unless their owner lives.
-- Somebody trimmed or deleted a stream of commands: without a token nobody would drive the run again.
-- KEYS commands run_stem ctl_stem stream...
-- ARGV nalive alive... run_id...
-- OK {run_id...}
local alive, first = {}, tonumber(ARGV[1]) + 2
for i = 2, first - 1 do alive[ARGV[i]] = true end
local function is_there(entry)
  for k = 4, #KEYS do
    if #redis.call('XRANGE', KEYS[k], entry, entry) > 0 then return true end
  end
  return false
end
local remade = {}
for i = first, #ARGV do
  local run, ctl = KEYS[2] .. ARGV[i], KEYS[3] .. ARGV[i]
  local status, x = redis.pcall('HGET', run, 'status'), redis.pcall('HMGET', ctl, 'token', 'owner')
  local owner = x[2] and (string.match(x[2], '^(.*)/') or x[2])
  if status == 'running' and x[1] and not (owner and alive[owner]) and not is_there(x[1]) then
    redis.call('HSET', ctl, 'token', redis.call('XADD', KEYS[1], '*', 'type', 'run.advance', 'run_id', ARGV[i]))
    remade[#remade + 1] = ARGV[i]
  end
end
return { 'OK', remade }
