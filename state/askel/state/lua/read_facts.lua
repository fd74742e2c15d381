-- read_facts: who and what a run waits for: its hash, control record and lock, where its token is, the steps
-- that have not ended (the newest of them, of the last reach steps), and the streams that those are on.
-- KEYS run ctl history lock steps step_stem commands sweep
-- ARGV group offset most reach
-- OK now {run...} {ctl...} holder pttl length {token...} {entry...} open {step...} {lease...} {stream...} | NOTFOUND
--- include clock tolerant place nobody
local run, ctl, history, lock, steps, stem, commands = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local group, most, reach = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local OPEN = { pending = true, scheduled = true, running = true, suspended = true }
local TOLD = { type = true, tries = true, unknown_since = true, at = true }

local r = redis.call('HMGET', run, 'id', 'workflow', 'status', 'error', 'inline', 'createdAt', 'updatedAt')
if not r[1] then return { 'NOTFOUND' } end
local x = tolerant('HMGET', ctl, 'token', 'owner', 'start', 'turn', 'robbed', 'queue') or { false, false, false, false, false, false }

local streams, known = {}, {}
local function stream_of(queue)
  local name = (queue and queue ~= '') and commands .. ':' .. queue or commands
  if not known[name] then
    local last, pending = last_delivered(name, group)
    local members = {}
    for k, flat in ipairs(last and tolerant('XINFO', 'CONSUMERS', name, group) or {}) do
      if k > 200 then break end
      local facts = {}
      for i = 1, #flat, 2 do facts[flat[i]] = flat[i + 1] end
      if facts.name ~= NOBODY then members[#members + 1], members[#members + 2] = facts.name, facts.idle end
    end
    known[name] = { last = last }
    local turn = (queue and queue ~= '') and KEYS[8] .. ':' .. queue or KEYS[8]
    streams[#streams + 1] = { queue or '', tolerant('XLEN', name) or 0, pending or 0, last and 1 or 0, members,
      tolerant('HGET', turn, 'at') or '' }
  end
  return name, known[name].last
end

-- A token is on the stream of its start, or on the default one.
local token, told = {}, {}
for _, queue in ipairs({ '', x[6] or nil }) do
  if x[1] and (not token[1] or token[1] == 'gone') then
    local name, last = stream_of(queue)
    local entry
    token, entry = place_of(name, group, x[1], last)
    token[#token + 1] = queue
    for k = 1, entry and #entry[2] or 0, 2 do
      if TOLD[entry[2][k]] then told[#told + 1], told[#told + 2] = entry[2][k], entry[2][k + 1] end
    end
  end
end

local open, count, leases = {}, 0, {}
local total = tolerant('LLEN', steps) or 0
for _, name in ipairs(total > 0 and redis.call('LRANGE', steps, -reach, -1) or {}) do
  local s = tolerant('HMGET', stem .. name, 'status', 'rpcName', 'attemptCount', 'retries', 'retryDelay', 'lease', 'queue', 'updatedAt', 'signal', 'timeout')
  if s and OPEN[s[1] or ''] then
    count = count + 1
    if count <= most then
      open[count] = { name, unpack(s, 1, 10) }
      leases[count] = {}
      if s[2] and (s[1] == 'scheduled' or s[6]) then
        local stream, last = stream_of(s[7])
        if s[1] == 'running' and s[6] then leases[count] = place_of(stream, group, s[6], last) end
      end
    end
  end
end
return { 'OK', clock(ARGV[2]), r, x, tolerant('GET', lock) or '', redis.call('PTTL', lock), tolerant('LLEN', history) or 0,
  token, told, count, open, leases, streams }
