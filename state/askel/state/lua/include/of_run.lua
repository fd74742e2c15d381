-- Changes of a list that are about the run itself.
function CHANGE.status(w, i)
  local allowed, target, output, err = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  if w.status == target then
    local r = w.output and { w.output, w.error } or redis.call('HMGET', w.run, 'output', 'error')
    local same = (output == '' or r[1] == output) and (err == '' or r[2] == err)
    return same and 'ALREADY' or 'ILLEGAL', w.status
  end
  if not string.find(allowed, ',' .. w.status .. ',', 1, true) then return 'ILLEGAL', w.status end
  w.events, w.runs = KEYS[tonumber(ARGV[i])], KEYS[tonumber(ARGV[i + 1])]
  w.left = w.left or w.status ~= 'running'
  w.status, w.output, w.error, w.wakes, w.ends = target, output, err, true, TERMINAL[target]
  add(w, '"t":"run","status":"' .. target .. '"' .. (output ~= '' and ',"output":' .. output or '')
    .. (err ~= '' and ',"error":' .. err or ''))
end

function CHANGE.set(w, i)
  local name, json = ARGV[i + 1], ARGV[i + 2]
  w.state = KEYS[tonumber(ARGV[i])]
  if (w.vars[name] or redis.call('HGET', w.state, name)) == json then return 'ALREADY' end
  if TERMINAL[w.status] then return 'TERMINAL', w.status end
  w.vars[name] = json
  add(w, '"t":"state","name":' .. cjson.encode(name) .. ',"value":' .. json)
end
