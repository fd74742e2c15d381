-- A write made under the run lock lands only while the lock is still this holder's.
local function lock_lost(lock, holder)
  return holder ~= '' and redis.call('GET', lock) ~= holder
end
