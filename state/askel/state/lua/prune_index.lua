-- prune_index: remove entries of an index that the hashes contradict: the run is gone, or has another
-- status or workflow than the index is for. status: a status, "ended" for any last one, '' for all.
-- KEYS index runs stem
-- ARGV dry status workflow run_id...
-- OK removed
--- include tolerant statuses terminal owner unindex
local index, runs, stem = KEYS[1], KEYS[2], KEYS[3]
local dry, status, workflow = ARGV[1] == '1', ARGV[2], ARGV[3]

local function is_wrong(run_id)
  if redis.call('EXISTS', stem .. run_id) == 0 then return true end
  local r = tolerant('HMGET', stem .. run_id, 'status', 'workflow') or {}
  if workflow ~= '' and r[2] and r[2] ~= workflow then return true end
  if status == '' or not KNOWN[r[1] or ''] then return false end
  if status == 'ended' then return not TERMINAL[r[1]] end
  return r[1] ~= status
end

local removed = 0
for k = 4, #ARGV do
  if redis.call('ZSCORE', index, ARGV[k]) and is_wrong(ARGV[k]) then
    removed = removed + 1
    if not dry then
      redis.call('ZREM', index, ARGV[k])
      if status == 'ended' then forget_usage(runs, ARGV[k], workflow) end
    end
  end
end
return { 'OK', removed }
