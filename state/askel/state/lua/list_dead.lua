-- list_dead: a page of the dead letters, newest first, without what they carry: only what names things.
-- It goes on before a letter's id ('' from the newest), and looks at no more than reach letters.
-- reason, run_id: only letters that have it ('' for all). place: where the next page begins; '' at the end.
-- KEYS dead
-- ARGV before reason run_id limit reach
-- OK place {id {word...}...}
local dead, before, reason, run_id = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local limit, reach = tonumber(ARGV[4]), tonumber(ARGV[5])
local NAMES = { 'reason', 'detail', 'stream', 'entry', 'deliveries', 'at', 'type', 'id', 'run_id', 'workflow', 'step_name',
  'rpc_name', 'name' }
local KNOWN = {}
for _, name in ipairs(NAMES) do KNOWN[name] = true end

-- The first of each name: the letter's own fields stand before those of its command.
local function told(words)
  local by_name, kept = {}, {}
  for k = 1, #words, 2 do
    local name = words[k]
    if KNOWN[name] and not by_name[name] then
      by_name[name] = words[k + 1]
      kept[#kept + 1], kept[#kept + 2] = name, words[k + 1]
    end
  end
  return by_name, kept
end

local place, found = before ~= '' and '(' .. before or '+', {}
while reach > 0 do
  local batch = redis.call('XREVRANGE', dead, place, '-', 'COUNT', math.min(reach, 20))
  if #batch == 0 then return { 'OK', '', found } end
  for _, letter in ipairs(batch) do
    if #found >= 2 * limit then return { 'OK', string.sub(place, 2), found } end
    local by_name, kept = told(letter[2])
    if (reason == '' or by_name.reason == reason) and (run_id == '' or by_name.run_id == run_id) then
      found[#found + 1], found[#found + 2] = letter[1], kept
    end
    place, reach = '(' .. letter[1], reach - 1
  end
end
return { 'OK', string.sub(place, 2), found }
