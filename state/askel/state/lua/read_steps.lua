-- read_steps: steps of a run as they stand: those that are named, else all in order of creation.
-- fields: the wanted ones between commas, the first of which every step has; without any, all.
-- next: the first item that was not read, because it is after last or the reply got large; -1: none.
-- KEYS steps stem
-- ARGV first last fields name...
-- OK next {name {field...}}
local steps, stem = KEYS[1], KEYS[2]
local first, last, fields = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local MAX_BYTES = 8 * 1024 * 1024

local wanted, names, total = {}, {}, #ARGV - 3
for field in string.gmatch(fields, '[^,]+') do wanted[#wanted + 1] = field end
if total > 0 then
  for k = first, math.min(last, total - 1) do names[#names + 1] = ARGV[4 + k] end
else
  names, total = redis.call('LRANGE', steps, first, last), redis.call('LLEN', steps)
end
local found, bytes = {}, 0
for k, name in ipairs(names) do
  if bytes > MAX_BYTES then return { 'OK', first + k - 1, found } end
  local step = #wanted > 0 and redis.call('HMGET', stem .. name, unpack(wanted)) or redis.call('HGETALL', stem .. name)
  if step[1] then
    for i = 1, #step do bytes = bytes + (step[i] and #step[i] or 0) end
    found[#found + 1] = name
    found[#found + 1] = step
  end
end
return { 'OK', last + 1 < total and last + 1 or -1, found }
