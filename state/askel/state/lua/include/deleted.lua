-- The runs that were deleted within the last hour, by the time of it on the server's own clock, and what
-- each was made and driven by (entries, an owner, a nonce): a millisecond does not tell what came first in it.
local REMEMBERED_MS = 3600000

local function remember_deleted(runs, run_id, makers)
  local key, now = runs .. ':deleted', clock('0')
  redis.call('ZADD', key, now, run_id)
  for _, maker in pairs(makers) do
    if maker then redis.call('ZADD', key, now, run_id .. ':' .. maker) end
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - REMEMBERED_MS)
  redis.call('PEXPIRE', key, REMEMBERED_MS)
end

-- Tells whether the run that this entry or nonce made was deleted.
local function made_deleted(runs, run_id, maker)
  return maker ~= '' and redis.call('ZSCORE', runs .. ':deleted', run_id .. ':' .. maker)
end

-- Tells whether an earlier copy of a call made the run, deleted since. One without a maker has a new run id.
local function made_before(runs, run_id, nonce, owner)
  if nonce == '' and owner == '' then return redis.call('ZSCORE', runs .. ':deleted', run_id) end
  return made_deleted(runs, run_id, nonce) or made_deleted(runs, run_id, owner)
end

-- Tells whether the run was deleted after the command in this entry was sent.
local function deleted_since(runs, run_id, entry)
  local at = entry ~= '' and redis.call('ZSCORE', runs .. ':deleted', run_id)
  if not at then return false end
  return made_deleted(runs, run_id, entry) or tonumber(string.match(entry, '^%d+')) < tonumber(at)
end
