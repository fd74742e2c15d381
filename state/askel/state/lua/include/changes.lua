-- The changes of `apply`, records behind one another: checked and kept in mind before the first write.
-- insert: key name step_id rpc_name data retries retry_delay from_step_name     (empty where there is none)
-- move:   key name step_id allowed target
-- finish: key name step_id allowed target outcome json
-- retry:  key name step_id target nonce
-- note:   key name step_id field value
-- status: events runs allowed target output error          set: state name json
-- key, events, runs and state are places in KEYS. A kind after a + lacks name and step_id: it is about
-- a step that a record before it was about, by the same id.
local LENGTH = { insert = 8, move = 5, finish = 7, retry = 5, note = 5, status = 6, set = 3 }
local AGAIN = { ['+move'] = 'move', ['+finish'] = 'finish' }
local PLACE = { branchTaken = 10, childRunId = 11 }
local CHANGE = {}
local function add(w, body) w.entries[#w.entries + 1] = opened(w.at, body) end

-- The step of the record at i, as it will be by now: its FIELDS, what they were, its name as JSON.
local function step_at(w, i)
  local place = ARGV[i]
  local s = w.steps[place]
  if s then return s end
  local key = KEYS[tonumber(place)]
  local was = redis.call('HMGET', key, unpack(FIELDS))
  s = { was = was, key = key, name = cjson.encode(ARGV[i + 1]), aliases = {}, unpack(was) }
  w.steps[place], w.order[#w.order + 1] = s, s
  return s
end

-- The step that the record at i is about, or why there is none.
local function known(w, i, again)
  if again then return w.steps[ARGV[i]] end
  local s = step_at(w, i)
  if not s[1] or (s[4] ~= ARGV[i + 2] and not s.aliases[ARGV[i + 2]]) then return nil, 'NOTFOUND' end
  return s
end

local function outcome_of(s, outcome)
  if s.outcome then return s.outcome == outcome and s.json end
  return redis.call('HGET', s.key, outcome)
end

function CHANGE.insert(w, i)
  local s, rpc = step_at(w, i), ARGV[i + 3]
  if s[1] then
    if (s[5] or '') ~= rpc then return 'CONFLICT' end
    s.aliases[ARGV[i + 2]] = true
    return 'ALREADY'
  end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  s[1], s[2], s[4], s[6] = 'pending', '1', ARGV[i + 2], ARGV[i + 4]
  local retries, delay, from = ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  s[5], s[7], s[8], s[9] = rpc ~= '' and rpc, retries ~= '' and retries, delay ~= '' and delay, from ~= '' and from
  w.names[#w.names + 1] = ARGV[i + 1]
  moved(s.key, s[2], s[1])
  w.entries[#w.entries + 1] = step_entry(w.at, s.name, s[1], s[2])
end

function CHANGE.move(w, i, again)
  local s, refusal = known(w, i, again)
  if refusal then return refusal end
  local allowed, target = unpack(ARGV, again and i + 1 or i + 3, i + 4)
  if s[1] == target then return 'ALREADY' end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  if not string.find(allowed, ',' .. s[1] .. ',', 1, true) then return 'ILLEGAL', s[1] end
  s[1] = target
  moved(s.key, s[2], s[1])
  w.entries[#w.entries + 1] = step_entry(w.at, s.name, s[1], s[2])
end

function CHANGE.finish(w, i, again)
  local s, refusal = known(w, i, again)
  if refusal then return refusal end
  local allowed, target, outcome, json = unpack(ARGV, again and i + 1 or i + 3, i + 6)
  if s[1] == target then return outcome_of(s, outcome) == json and 'ALREADY' or 'CONFLICT' end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  if not string.find(allowed, ',' .. s[1] .. ',', 1, true) then return 'ILLEGAL', s[1] end
  local final = target == 'failed' and last_attempt(s) or ''
  w.entries[#w.entries + 1] = closed(s, w.at, nil, target, outcome, json, final)
  s[1], s.outcome, s.json, w.wakes = target, outcome, json, true
  moved(s.key, s[2], target, outcome, json)
end
