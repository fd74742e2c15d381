-- Changes of a list that are about the run itself.
function CHANGE.status(i)
  local allowed, target, output, err = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  if status == target then
    local now = moved_run and { moved_run.output, moved_run.error } or redis.call('HMGET', run, 'output', 'error')
    local same = (output == '' or now[1] == output) and (err == '' or now[2] == err)
    return same and 'ALREADY' or 'ILLEGAL', status
  end
  if not string.find(allowed, ',' .. status .. ',', 1, true) then return 'ILLEGAL', status end
  local left = status ~= 'running' or (moved_run and moved_run.left)
  moved_run = { events = KEYS[tonumber(ARGV[i])], runs = KEYS[tonumber(ARGV[i + 1])], output = output, error = err, left = left }
  status, wakes = target, true
  entries[#entries + 1] = opened(at, '"t":"run","status":"' .. target .. '"' .. (output ~= '' and ',"output":' .. output or '')
    .. (err ~= '' and ',"error":' .. err or ''))
end

function CHANGE.set(i)
  local key, name, json = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
  vars = vars or { key = key, values = {} }
  if (vars.values[name] or redis.call('HGET', key, name)) == json then return 'ALREADY' end
  if TERMINAL[status] then return 'TERMINAL', status end
  vars.values[name] = json
  entries[#entries + 1] = opened(at, '"t":"state","name":' .. cjson.encode(name) .. ',"value":' .. json)
end
