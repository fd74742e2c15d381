-- What a list of changes comes to: the rest of their kinds (see changes), and the writes.
local function step_changes(w, key, s)
  local words = {}
  for k, field in ipairs(FIELDS) do
    if s[k] and s[k] ~= s.was[k] then words[#words + 1] = field words[#words + 1] = s[k] end
  end
  if not s.was[1] then words[#words + 1] = 'createdAt' words[#words + 1] = w.at end
  if s.outcome then words[#words + 1] = s.outcome words[#words + 1] = s.json end
  return words
end

-- An outcome is written first: that Redis accepts even when it is out of memory.
local function write_steps(w)
  for _, key in ipairs(w.order) do
    local s = w.steps[key]
    if s.outcome then redis.call('HDEL', key, s.outcome == 'result' and 'error' or 'result') end
  end
  for _, key in ipairs(w.order) do
    local s = w.steps[key]
    local words = step_changes(w, key, s)
    if #words > 0 then
      words[#words + 1] = 'updatedAt'
      words[#words + 1] = w.at
      redis.call('HSET', key, unpack(words))
    end
    if s.cleared then
      for k, field in pairs({ [10] = 'branchTaken', [11] = 'childRunId' }) do
        if not s[k] then redis.call('HDEL', key, field) end
      end
      if not s.outcome then redis.call('HDEL', key, 'result', 'error') end
    end
  end
end

function CHANGE.status(w, i)
  local allowed, target, output, err = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if w.status == target then
    local r = w.output and { w.output, w.error } or redis.call('HMGET', w.run, 'output', 'error')
    local same = (output == '' or r[1] == output) and (err == '' or r[2] == err)
    return same and 'ALREADY' or 'ILLEGAL', w.status
  end
  if not string.find(allowed, ',' .. w.status .. ',', 1, true) then return 'ILLEGAL', w.status end
  w.status, w.output, w.error, w.wakes, w.ends = target, output, err, true, TERMINAL[target]
  add(w, '"t":"run","status":"' .. target .. '"' .. (output ~= '' and ',"output":' .. output or '')
    .. (err ~= '' and ',"error":' .. err or ''))
end

function CHANGE.set(w, i)
  local name, json = ARGV[i], ARGV[i + 1]
  if (w.vars[name] or redis.call('HGET', w.state, name)) == json then return 'ALREADY' end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  w.vars[name], w.touches = json, true
  add(w, '"t":"state","name":' .. cjson.encode(name) .. ',"value":' .. json)
end

-- The answers in order; for an insertion that found its step, and a new attempt, the step's hash.
local function loaded(answers)
  for place, answer in ipairs(answers) do
    answers[place] = answer[2] and redis.call('HGETALL', answer[2]) or answer[1]
  end
  return answers
end
