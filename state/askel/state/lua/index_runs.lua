-- index_runs: put runs into every index in which their hashes say they belong; dry: only look.
-- A letter for each run: s stands where it should, n was in no index, m was missing from one or stood
-- elsewhere in it, d has a damaged hash (and is listed among all runs, so as to be seen), g is gone.
-- KEYS runs stem
-- ARGV dry run_id...
-- OK letters
--- include tolerant statuses terminal owner index
local runs, stem, dry = KEYS[1], KEYS[2], ARGV[1] == '1'

local function put(key, score, member)
  local current = redis.call('ZSCORE', key, member)
  if current and tonumber(current) == tonumber(score) then return 0 end
  if not dry then redis.call('ZADD', key, score, member) end
  return 1
end

local function is_time(text)
  return text and string.match(text, '^%d+$') and #text <= 15
end

local function put_in_place(run_id, r)
  local workflow, status, created = r[2], r[3], r[4]
  local one, two = by_status(runs, status, workflow)
  local changes = put(runs .. ':workflows', 0, workflow)
  for _, key in ipairs({ runs, runs .. ':workflow:' .. workflow, one, two }) do changes = changes + put(key, created, run_id) end
  local ended = runs .. ':ended:' .. workflow
  if TERMINAL[status] and not redis.call('ZSCORE', ended, run_id) then
    changes = changes + put(ended, is_time(r[5]) and r[5] or created, run_id)
  end
  return changes
end

local function letter_of(run_id)
  if redis.call('EXISTS', stem .. run_id) == 0 then return 'g' end
  local r = tolerant('HMGET', stem .. run_id, 'id', 'workflow', 'status', 'createdAt', 'updatedAt') or {}
  local was_listed = redis.call('ZSCORE', runs, run_id)
  if r[1] ~= run_id or not r[2] or not KNOWN[r[3]] or not is_time(r[4]) then
    if not was_listed then put(runs, is_time(r[4]) and r[4] or 0, run_id) end
    return 'd'
  end
  if put_in_place(run_id, r) == 0 then return 's' end
  return was_listed and 'm' or 'n'
end

local letters = {}
for k = 2, #ARGV do letters[#letters + 1] = letter_of(ARGV[k]) end
return { 'OK', table.concat(letters) }
