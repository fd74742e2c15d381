-- remake_tokens: runs whose token nobody can be given any more get another, unless their owner lives.
-- Somebody trimmed or deleted a stream of commands, or a consumer with what was pending for it.
-- The first look only notes it: an owner that lives says so until the second, silent_ms later.
-- Where a token is looked for is up to the run, whatever streams the caller serves.
-- KEYS commands run_stem ctl_stem
-- ARGV group offset silent_ms run_id...
-- OK {run_id...}
--- include clock tolerant place token
local group, now, silent = ARGV[1], tonumber(clock(ARGV[2])), tonumber(ARGV[3])

-- Whether somebody has the token, or will be given it; and the stream on which it lies in vain. A group
-- that is missing will be made anew, and read all.
local function find(token, queue, run_id)
  for _, stream in ipairs(streams_of_token(KEYS[1], queue)) do
    local place, entry = place_of(stream, group, token, (last_delivered(stream, group)))
    if entry and drives(entry, run_id) then return place[1] ~= 'orphaned', stream end
    if not entry and place[1] == 'pending' then return true end
  end
  return false
end

local function remake(run_id)
  local run, ctl = KEYS[2] .. run_id, KEYS[3] .. run_id
  local status = redis.pcall('HGET', run, 'status')
  local x = redis.pcall('HMGET', ctl, 'token', 'gone', 'alive', 'queue')
  if status ~= 'running' or not x[1] then return false end
  local is_there, stream = find(x[1], x[4], run_id)
  if is_there then
    if x[2] then redis.call('HDEL', ctl, 'gone') end
    return false
  end
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
