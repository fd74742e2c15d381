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

-- Milliseconds for which somebody who is neither the caller nor the run's owner holds the lock.
local function busy(lock, owner, me)
  local holder = redis.call('GET', lock)
  if not holder or holder == me or (owner and holder == owner) then return false end
  return redis.call('PTTL', lock)
end

-- Whoever clears the owner also gives back the lock, if it is that owner's.
local function disown(ctl, lock, owner)
  redis.call('HDEL', ctl, 'token', 'owner')
  if owner and redis.call('GET', lock) == owner then redis.call('DEL', lock) end
end
