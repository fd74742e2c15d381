-- renew: keep an entry that is pending for this consumer, if the owner or attempt nonce is still ours.
-- KEYS stream hash history run
-- ARGV group consumer entry field nonce
-- OK length status | LOST
--- include terminal owner
local is_mine = pending(KEYS[1], ARGV[1], ARGV[3], ARGV[2])
if not is_mine then
  -- Deleted by somebody, it can be nobody else's either: whoever is still named goes on without it.
  local is_anybodys = #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1) == 1
  if ARGV[4] == '' or is_anybodys or #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) > 0 then return { 'LOST' } end
end
if ARGV[4] ~= '' and redis.call('HGET', KEYS[2], ARGV[4]) ~= ARGV[5] then return { 'LOST' } end
if is_mine then redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID') end
return { 'OK', redis.call('LLEN', KEYS[3]), redis.call('HGET', KEYS[4], 'status') or '' }
