-- The changes of `apply`, words behind one another: checked and kept in mind before the first write.
-- insert: key name step_id data n {field value}...       n words: of rpcName retries retryDelay fromStepName, in this order
-- scheduled, running                                     the step moves
-- succeeded, failed: json                                its attempt ends
-- retry: target nonce          note: field value
-- status: events runs allowed target output error        set: state name json
-- A change of a step is about the one that was inserted just before, or that is named between the two:
-- step: key name step_id                                 no change; it has no place and no answer
-- key, events, runs and state are places in KEYS.
--- include step_at
local CHANGE, LENGTH, s
local i = 5
while ARGV[i] do
  local word, detail
  if ARGV[i] == 'step' then
    s = step_at(tonumber(ARGV[i + 1]), ARGV[i + 2])
    if s and s[4] ~= ARGV[i + 3] and not (s.ids and s.ids[ARGV[i + 3]]) then s = nil end
    i = i + 4
  end
  local verb = ARGV[i]
  place = place + 1
  if verb == 'insert' then
    local k, name, step_id, data, first = tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], i + 6
    i = first + ARGV[i + 5]
    local rpc = first < i and ARGV[first] == 'rpcName' and ARGV[first + 1]
    s = steps[k] or (redis.call('HGET', KEYS[k], 'status') and step_at(k, name))
    if s then
      word = (s[5] or false) == rpc and 'ALREADY' or 'CONFLICT'
      s.ids, loads, last_load = s.ids or {}, loads or {}, place
      s.ids[step_id], loads[place] = true, s.key
    elseif TERMINAL[status] then word, detail = 'TERMINAL', status
    else
      s = { 'pending', '1', false, step_id, rpc, data, false, false, false,
        key = KEYS[k], name = cjson.encode(name), before = false, first = first, last = i - 1, outcome = false, json = false }
      steps[k], names[#names + 1] = s, name
      s.before = '{"at":' .. at .. ',"t":"step","name":' .. s.name .. ',"status":"'
      entries[#entries + 1] = s.before .. 'pending"}'
      moved(s.key, '1', 'pending')
    end
  elseif sources(verb) then
    local outcome = verb == 'succeeded' and 'result' or verb == 'failed' and 'error'
    local json = outcome and ARGV[i + 1]
    i = i + (outcome and 2 or 1)
    if not s then word = 'NOTFOUND'
    elseif s[1] == verb then
      local same = not outcome or (s.outcome and s.json or redis.call('HGET', s.key, outcome)) == json
      word = same and 'ALREADY' or 'CONFLICT'
    elseif TERMINAL[status] then word, detail = 'TERMINAL', status
    elseif not string.find(sources(verb), ',' .. s[1] .. ',', 1, true) then word, detail = 'ILLEGAL', s[1]
    elseif outcome then
--- include closing
      local k = s.first
      if k and s[5] then k = k + 2 end
      if k and ARGV[k] == 'retries' then s[7], k = ARGV[k + 1], k + 2 end
      if k and ARGV[k] == 'retryDelay' then s[8], k = ARGV[k + 1], k + 2 end
      if k and ARGV[k] == 'fromStepName' then s[9] = ARGV[k + 1] end
      entries[#entries + 1] = closed(s, at, nil, verb, outcome, json, outcome == 'error' and last_attempt(s) or '')
      s[1], s.touched, s.outcome, s.json, wakes = verb, true, outcome, json, true
      lands = lands or not s.first
      moved(s.key, s[2], verb, outcome, json)
    else
      s[1], s.touched = verb, true
      moved(s.key, s[2], verb)
      entries[#entries + 1] = s.before .. verb .. (s[2] == '1' and '"}' or '","attempt":' .. s[2] .. '}')
    end
  else
    if not CHANGE then
      CHANGE = {}
--- include attempt of_run
    end
    word, detail = CHANGE[verb](i + 1)
    i = i + LENGTH[verb]
  end
  if word and word ~= 'ALREADY' then return { word, place, detail } end
end
