-- The step at k in KEYS as it will be by now: its FIELDS, its key, its name as JSON, and what an entry
-- has before its status.
local function step_at(k, name)
  if steps[k] then return steps[k] end
--- include fields
  local s = redis.call('HMGET', KEYS[k], unpack(FIELDS))
  if not s[1] then return nil end
  s.key, s.name, steps[k] = KEYS[k], cjson.encode(name), s
  s.before = '{"at":' .. at .. ',"t":"step","name":' .. s.name .. ',"status":"'
  return s
end
