-- What a list of changes comes to: the writes, and what is answered.
local function step_words(w, s)
  local words, n, was = {}, 0, s.was
  for k = 1, #FIELDS do
    local value = s[k]
    if value and value ~= was[k] then words[n + 1], words[n + 2], n = FIELDS[k], value, n + 2 end
  end
  if s.outcome then words[n + 1], words[n + 2], n = s.outcome, s.json, n + 2 end
  if n == 0 then return words end
  if not was[1] then words[n + 1], words[n + 2], n = 'createdAt', w.at, n + 2 end
  words[n + 1], words[n + 2] = 'updatedAt', w.at
  return words
end

local function clear(s)
  for k, field in pairs({ [10] = 'branchTaken', [11] = 'childRunId' }) do
    if not s[k] then redis.call('HDEL', s.key, field) end
  end
  if not s.outcome then redis.call('HDEL', s.key, 'result', 'error') end
end

-- The outcome of a step that was there is written first: that Redis accepts even out of memory.
local function write_steps(w)
  for _, s in ipairs(w.order) do
    if s.outcome and s.was[1] then redis.call('HDEL', s.key, s.outcome == 'result' and 'error' or 'result') end
  end
  for _, s in ipairs(w.order) do
    local words = step_words(w, s)
    if #words > 0 then redis.call('HSET', s.key, unpack(words)) end
    if s.cleared then clear(s) end
  end
end

-- The answers in order; for an insertion that found its step, and a new attempt, the step's hash.
local function loaded(w, answers)
  for place, key in pairs(w.load) do answers[place] = redis.call('HGETALL', key) end
  return answers
end
