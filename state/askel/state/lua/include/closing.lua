-- Said of a failure after which no other attempt comes. s: the FIELDS of the step.
local function last_attempt(s)
  return s[7] and tonumber(s[2]) > tonumber(s[7]) and ',"final":true' or ''
end

-- The entry that closes an attempt is complete: it can be read without the ones before it.
-- s: the FIELDS of the step, perhaps its name as JSON. outcome: "result" or "error". tail: further members, each with its comma.
local function closed(s, at, name, status, outcome, json, tail)
  return '{"at":' .. at .. ',"t":"step","name":' .. (s.name or cjson.encode(name)) .. ',"status":"' .. status
    .. '","attempt":' .. s[2] .. ',"id":' .. cjson.encode(string.match(s[4] or '', '.*:(.*)') or '')
    .. (s[5] and ',"rpc":' .. cjson.encode(s[5]) or '')
    .. (s[6] and s[6] ~= 'null' and ',"data":' .. s[6] or '')
    .. (s[7] and ',"retries":' .. s[7] or '')
    .. (s[8] and ',"retryDelay":' .. cjson.encode(s[8]) or '')
    .. (s[9] and ',"from":' .. cjson.encode(s[9]) or '')
    .. (s[10] and ',"branch":' .. cjson.encode(s[10]) or '')
    .. (s[11] and ',"child":' .. cjson.encode(s[11]) or '')
    .. ',"' .. outcome .. '":' .. json .. tail .. '}'
end
