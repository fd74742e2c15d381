-- read_run: a run as it stands, with its history from first to last (-1: to the end), cut where it
-- gets large; of up to that many steps also those whose attempt is open: the history does not
-- say yet what the entry that closes an attempt will.
-- KEYS run history steps stem
-- ARGV first last steps
-- OK total {field...} {entry...} {name {field...}} | NOTFOUND
local run, history, steps, stem = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local first, last, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local MAX_BYTES = 8 * 1024 * 1024
local CLOSED = { succeeded = true, failed = true }

local fields = redis.call('HGETALL', run)
if #fields == 0 then return { 'NOTFOUND' } end
local total = redis.call('LLEN', history)
if last < 0 or last >= total then last = total - 1 end
local entries, bytes = {}, 0
while first <= last and bytes <= MAX_BYTES do
  for _, entry in ipairs(redis.call('LRANGE', history, first, math.min(first + 19, last))) do
    if bytes <= MAX_BYTES then entries[#entries + 1], bytes = entry, bytes + #entry end
  end
  first = first + 20
end
local open = {}
bytes = 0
for _, name in ipairs(most > 0 and redis.call('LRANGE', steps, 0, most - 1) or {}) do
  local status = redis.call('HGET', stem .. name, 'status')
  if status and not CLOSED[status] and bytes <= MAX_BYTES then
    local step = redis.call('HGETALL', stem .. name)
    for _, value in ipairs(step) do bytes = bytes + #value end
    open[#open + 1] = name
    open[#open + 1] = step
  end
end
return { 'OK', total, fields, entries, open }
