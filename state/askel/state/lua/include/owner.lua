-- Who may write: pending entries, the run lock, the run's owner.
local function pending(stream, group, entry, consumer)
  return #redis.call('XPENDING', stream, group, entry, entry, 1, consumer) == 1
end

-- An entry that is not pending is left on the stream: where the group was made anew, it comes again.
local function drop(stream, group, entry)
  local acked = redis.call('XACK', stream, group, entry)
  if acked == 1 then redis.call('XDEL', stream, entry) end
  return acked
end

-- How long a lock still lasts. One that would outlive any lease, the longest usual one and the longest
-- that was given, is a mistake of the server's clock, which was set back: it gets the longest, in which
-- whoever holds it renews it.
local LONGEST_MS = 60000
local function remaining(ctl, lock)
  local pttl = redis.call('PTTL', lock)
  if pttl <= LONGEST_MS then return pttl end
  local longest = math.max(LONGEST_MS, tonumber(redis.call('HGET', ctl, 'lock_ms') or '0'))
  if pttl > longest then redis.call('PEXPIRE', lock, longest) end
  return math.min(pttl, longest)
end

-- Milliseconds for which somebody who is neither the caller nor the run's owner holds the lock.
local function busy(ctl, lock, owner, me)
  local holder = redis.call('GET', lock)
  if not holder or holder == me or (owner and holder == owner) then return false end
  return remaining(ctl, lock)
end

-- Whoever clears the owner also gives back the lock, if it is that owner's.
local function disown(ctl, lock, owner)
  redis.call('HDEL', ctl, 'token', 'owner')
  if owner and redis.call('GET', lock) == owner then redis.call('DEL', lock) end
end
