-- deliver: read an entry that this consumer has claimed, and set how often it was delivered.
-- KEYS stream
-- ARGV group consumer entry count
-- OK field... | LOST
--- include terminal owner
if not pending(KEYS[1], ARGV[1], ARGV[3], ARGV[2]) then return { 'LOST' } end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4], 'JUSTID')
local found = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])
return { 'OK', found[1] and found[1][2] or {} }
