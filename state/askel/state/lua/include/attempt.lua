-- Changes of a list: the next attempt of a step, and what is noted of one. A step keeps the nonces of
-- its last retries: a copy of a call that comes when further attempts have failed begins none.
--- include opening
LENGTH = { retry = 3, note = 3, status = 7, set = 4 }

function CHANGE.retry(i)
  if not s then return 'NOTFOUND' end
  local target, own, before = ARGV[i], ARGV[i + 1], s[3] or ''
  loads, last_load = loads or {}, place
  loads[place] = s.key
  if string.find(before, own, 1, true) then return 'ALREADY' end
  if TERMINAL[status] then return 'TERMINAL', status end
  if s[1] ~= 'failed' then return 'ILLEGAL', s[1] end
  if s[7] and tonumber(s[2]) > tonumber(s[7]) then return 'SPENT', tonumber(s[2]) end
  s[1], s[2], s[10], s[11] = target, string.format('%d', s[2] + 1), false, false
  s[3] = string.sub(before == '' and own or own .. ' ' .. before, 1, 101)   -- of the last six attempts
  s.outcome, s.json, s.cleared, s.touched = false, false, true, true
  s.more = { 'attemptCount', s[2], 'nonce', s[3] }
  moved(s.key, s[2], target)
  entries[#entries + 1] = step_entry(at, s.name, target, s[2])
end

-- An entry of its own, without a status: the attempt goes on, or has ended, as it was.
function CHANGE.note(i)
  if not s then return 'NOTFOUND' end
  local field, value = ARGV[i], ARGV[i + 1]
  local k = field == 'branchTaken' and 10 or 11
  if s[k] == value then return 'ALREADY' end
  if TERMINAL[status] then return 'TERMINAL', status end
  s[k], s.touched = value, true
  s.more = s.more or {}
  s.more[#s.more + 1], s.more[#s.more + 2] = field, value
  entries[#entries + 1] = opened(at, '"t":"step","name":' .. s.name .. of_attempt(s[2])
    .. (k == 10 and ',"branch":' or ',"child":') .. cjson.encode(value))
end
