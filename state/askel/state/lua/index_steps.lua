-- index_steps: name steps in the index of their run, in which they are missing, by time of creation.
-- Those that are named keep their order; a hash without a stepId is no step. dry: only count.
-- KEYS run steps stem
-- ARGV dry name...
-- OK added | NOTFOUND
--- include tolerant
local run, steps, stem, dry = KEYS[1], KEYS[2], KEYS[3], ARGV[1] == '1'

if redis.call('EXISTS', run) == 0 then return { 'NOTFOUND' } end
local function created(name)
  local at = tolerant('HGET', stem .. name, 'createdAt')
  return at and tonumber(at)
end
local named, seen, added = redis.call('LRANGE', steps, 0, -1), {}, {}
for _, name in ipairs(named) do seen[name] = true end
for k = 2, #ARGV do
  local name = ARGV[k]
  if not seen[name] and tolerant('HGET', stem .. name, 'stepId') then
    seen[name] = true
    added[#added + 1] = { at = created(name) or 0, k = k, name = name }
  end
end
if dry or #added == 0 then return { 'OK', #added } end
table.sort(added, function(a, b) return a.at < b.at or (a.at == b.at and a.k < b.k) end)
redis.call('DEL', steps)
local i = 1
for _, name in ipairs(named) do
  local at = created(name) or 0
  while added[i] and added[i].at < at do
    redis.call('RPUSH', steps, added[i].name)
    i = i + 1
  end
  redis.call('RPUSH', steps, name)
end
for k = i, #added do redis.call('RPUSH', steps, added[k].name) end
return { 'OK', #added }
