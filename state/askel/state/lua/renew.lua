-- renew: keep an entry that is pending for this consumer, if the owner or attempt nonce is still ours.
-- KEYS stream hash history run
-- ARGV group consumer entry field nonce
-- OK length status | LOST
--- include terminal owner
if not pending(KEYS[1], ARGV[1], ARGV[3], ARGV[2]) then return { 'LOST' } end
if ARGV[4] ~= '' and redis.call('HGET', KEYS[2], ARGV[4]) ~= ARGV[5] then return { 'LOST' } end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return { 'OK', redis.call('LLEN', KEYS[3]), redis.call('HGET', KEYS[4], 'status') or '' }
