-- list_runs: a page of an index, newest first, runs of one millisecond in falling order of their ids.
-- It begins behind the place (after_score, after_id), at scores below before, and ends at since.
-- Each hit is verified: runs that are gone, or have another status or workflow, are passed over. A page
-- is cut after reach entries, or where it gets large; more is then 1, and score and id the place reached.
-- KEYS index stem
-- ARGV since before after_score after_id status workflow limit reach
-- OK more score id {id {field...}}
--- include statuses tolerant
local index, stem, since, before = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2]
local score, id, status, workflow = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local limit, reach = tonumber(ARGV[7]), tonumber(ARGV[8])
local MAX_BYTES = 8 * 1024 * 1024

-- By bytes, as the index is ordered; the comparison of Lua goes by the locale.
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    if a:byte(i) ~= b:byte(i) then return a:byte(i) < b:byte(i) end
  end
  return #a < #b
end

-- The rank behind the place: by its entry where that still stands there, else halving its score's ranks.
local function rank_behind()
  local low = redis.call('ZCOUNT', index, '(' .. score, '+inf')
  local high = low + redis.call('ZCOUNT', index, score, score)
  local known = redis.call('ZREVRANK', index, id)
  if known and known >= low and known < high then return known + 1 end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_less(redis.call('ZREVRANGE', index, middle, middle)[1], id) then high = middle else low = middle + 1 end
  end
  return low
end

local function is_other(run)
  local own = {}
  for i = 1, #run, 2 do own[run[i]] = run[i + 1] end
  if status ~= '' and KNOWN[own.status] and own.status ~= status then return true end
  return workflow ~= '' and own.workflow and own.workflow ~= workflow
end

local function size(run)
  local bytes = 0
  for i = 1, run and #run or 0 do bytes = bytes + #run[i] end
  return bytes
end

local rank = before ~= '' and redis.call('ZCOUNT', index, before, '+inf') or 0
if score ~= '' then rank = math.max(rank, rank_behind()) end
local found, bytes, examined = {}, 0, 0
while true do
  local room = math.min(limit - #found / 2, reach - examined, 100)
  -- One more than there is room for, to tell whether it was the last page.
  local batch = redis.call('ZREVRANGE', index, rank, rank + math.max(room, 0), 'WITHSCORES')
  for i = 1, #batch, 2 do
    if tonumber(batch[i + 1]) < since then return { 'OK', 0, '', '', found } end
    if room <= 0 or bytes > MAX_BYTES then return { 'OK', 1, score, id, found } end
    id, score, rank, room, examined = batch[i], batch[i + 1], rank + 1, room - 1, examined + 1
    local run = tolerant('HGETALL', stem .. id)
    if not run or (#run > 0 and not is_other(run)) then
      found[#found + 1] = id
      found[#found + 1] = run or false
      bytes = bytes + size(run)
    end
    if room == 0 then break end
  end
  if #batch == 0 then return { 'OK', 0, '', '', found } end
end
