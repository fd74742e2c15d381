-- Changes of a list: the next attempt of a step, and what is noted of one. A step keeps the nonces of
-- its last retries: a copy of a call that comes when further attempts have failed begins none.
function CHANGE.retry(w, i)
  local s, refusal = known(w, i)
  if refusal then return refusal end
  local nonce, before = ARGV[i + 4], s[3] or ''
  if string.find(before, nonce, 1, true) then return 'ALREADY' end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  if s[1] ~= 'failed' then return 'ILLEGAL', s[1] end
  if s[7] and tonumber(s[2]) > tonumber(s[7]) then return 'SPENT', tonumber(s[2]) end
  s[1], s[2], s[10], s[11] = ARGV[i + 3], string.format('%d', s[2] + 1), false, false
  s[3] = string.sub(before == '' and nonce or nonce .. ' ' .. before, 1, 101)   -- of the last six attempts
  s.outcome, s.cleared = nil, true
  moved(s.key, s[2], s[1])
  w.entries[#w.entries + 1] = step_entry(w.at, s.name, s[1], s[2])
end

-- An entry of its own, without a status: the attempt goes on, or has ended, as it was.
function CHANGE.note(w, i)
  local s, refusal = known(w, i)
  if refusal then return refusal end
  local field, value = ARGV[i + 3], ARGV[i + 4]
  local k = PLACE[field]
  if s[k] == value then return 'ALREADY' end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  s[k] = value
  add(w, '"t":"step","name":' .. s.name .. of_attempt(s[2])
    .. (k == 10 and ',"branch":' or ',"child":') .. cjson.encode(value))
end
