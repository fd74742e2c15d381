-- Keeps what the Node service reads beside the step hash: P:step-history:{stepId}, a sorted set with
-- one member per attempt, whose score is the attempt's number. Payloads stay the JSON text they are:
-- the members carry them as strings, so that cjson may write a member anew.
--- include history_of
local STAMPS = { 'createdAt', 'scheduledAt', 'runningAt', 'succeededAt', 'failedAt' }
local moves = {}

-- An attempt changes; outcome: "result" or "error", with its text. Remembered until the step is written.
local function moved(step, attempt, status, outcome, json)
  moves[#moves + 1] = { step, tonumber(attempt), status == 'lost' and 'failed' or status, outcome, json }
end

local function decoded(text)
  local ok, member = pcall(cjson.decode, text or '')
  return ok and type(member) == 'table' and tonumber(member.attemptCount) and member
end

local function latest(member)
  local at = 0
  for _, name in ipairs(STAMPS) do at = math.max(at, tonumber(member[name]) or 0) end
  return at
end

-- Node takes an attempt for newer only if it was created after the one before had ended, and sorts
-- by time: so no time here is less than the one before it.
local function earliest(key, attempt)
  local before = attempt > 1 and redis.call('ZREVRANGEBYSCORE', key, '(' .. attempt, '-inf', 'LIMIT', 0, 1)[1]
  before = before and decoded(before)
  return before and latest(before) + 1 or 0
end

-- Writes what was remembered; the step hashes hold the step ids by now.
local function mirror(at)
  for _, m in ipairs(moves) do
    local step, attempt, status, outcome, json = unpack(m, 1, 5)
    local s = redis.call('HMGET', step, 'stepId', 'retries', 'retryDelay', 'createdAt')
    local stem, id, name = history_of(step, s[1])
    if stem then
      local key = stem .. id
      local member = decoded(redis.call('ZRANGEBYSCORE', key, attempt, attempt, 'LIMIT', 0, 1)[1])
        or { stepId = id, stepName = name, attemptCount = attempt, createdAt = attempt == 1 and tonumber(s[4]) or tonumber(at),
          retries = s[2] and tonumber(s[2]) or nil, retryDelay = s[3] or nil }
      local first = earliest(key, attempt)
      if (tonumber(member.createdAt) or 0) < first then member.createdAt = first end
      local stamp = status .. 'At'
      member.status, member.result, member.error = status, nil, nil
      if outcome then member[outcome] = json end
      if status ~= 'pending' and status ~= 'suspended' then member[stamp] = math.max(tonumber(at), latest(member)) end
      redis.call('ZREMRANGEBYSCORE', key, attempt, attempt)
      redis.call('ZADD', key, attempt, cjson.encode(member))
    end
  end
end
