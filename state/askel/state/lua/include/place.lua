-- Where an entry of a stream is: 'pending' consumer idle_ms deliveries, 'waiting' to be delivered, 'orphaned' (on
-- the stream, but neither: its consumer was removed by hand), or 'gone'. last: the entry delivered last.
local function last_delivered(stream, group)
  if redis.call('EXISTS', stream) == 0 then return nil end   -- XINFO would raise
  for _, flat in ipairs(tolerant('XINFO', 'GROUPS', stream) or {}) do
    local facts = {}
    for k = 1, #flat, 2 do facts[flat[k]] = flat[k + 1] end
    if facts.name == group then return facts['last-delivered-id'], facts.pending end
  end
end

local function is_behind(id, last)
  local ms, n = string.match(id, '^(%d+)-(%d+)$')
  local last_ms, last_n = string.match(last or '0-0', '^(%d+)-(%d+)$')
  if tonumber(ms) ~= tonumber(last_ms) then return tonumber(ms) > tonumber(last_ms) end
  return tonumber(n) > tonumber(last_n)
end

local function place_of(stream, group, id, last)
  local held = last and redis.call('XPENDING', stream, group, id, id, 1)[1]
  local found = tolerant('XRANGE', stream, id, id) or {}
  if held then return { 'pending', held[2], held[3], held[4] }, found[1] end
  if not found[1] then return { 'gone' } end
  return { is_behind(id, last) and 'waiting' or 'orphaned' }, found[1]
end
