-- remake_tokens: runs whose token nobody can be given any more get another, unless their owner lives.
-- Somebody trimmed or deleted a stream of commands, or a consumer with what was pending for it.
-- The first look only notes it: an owner that lives says so until the second, silent_ms later.
-- KEYS commands run_stem ctl_stem stream...
-- ARGV group offset silent_ms run_id...
-- OK {run_id...}
--- include clock
local group, now, silent = ARGV[1], tonumber(clock(ARGV[2])), tonumber(ARGV[3])

local function is_after(a, b)
  local a1, a2 = string.match(a, '^(%d+)%-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)%-(%d+)$')
  return tonumber(a1) > tonumber(b1) or (a1 == b1 and tonumber(a2) > tonumber(b2))
end

-- Whether the group has yet to read the entry. A group that is missing will be made anew, and read all.
local function is_unread(stream, entry)
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local facts = {}
    for k = 1, #flat, 2 do facts[flat[k]] = flat[k + 1] end
    if facts['name'] == group then return is_after(entry, facts['last-delivered-id']) end
  end
  return true
end

-- Whether somebody has the token, or will be given it; and the stream on which it lies in vain.
local function find(entry)
  for k = 4, #KEYS do
    local held = redis.pcall('XPENDING', KEYS[k], group, entry, entry, 1)
    if held[1] then return true end
    if #redis.call('XRANGE', KEYS[k], entry, entry) > 0 then return is_unread(KEYS[k], entry), KEYS[k] end
  end
  return false
end

local function remake(run_id)
  local run, ctl = KEYS[2] .. run_id, KEYS[3] .. run_id
  local status, x = redis.pcall('HGET', run, 'status'), redis.pcall('HMGET', ctl, 'token', 'gone', 'alive')
  if status ~= 'running' or not x[1] then return false end
  local is_there, stream = find(x[1])
  if is_there then return false end
  local token, since = string.match(x[2] or '', '^(%S+) (%d+)$')
  if token ~= x[1] then
    redis.call('HSET', ctl, 'gone', x[1] .. ' ' .. string.format('%.0f', now))
    return false
  end
  if now - since < silent or now - tonumber(x[3] or '0') < silent then return false end
  redis.call('HSET', ctl, 'token', redis.call('XADD', KEYS[1], '*', 'type', 'run.advance', 'run_id', run_id))
  redis.call('HDEL', ctl, 'gone', 'alive')
  if stream then redis.call('XDEL', stream, x[1]) end
  return true
end

local remade = {}
for i = 4, #ARGV do
  if remake(ARGV[i]) then remade[#remade + 1] = ARGV[i] end
end
return { 'OK', remade }
