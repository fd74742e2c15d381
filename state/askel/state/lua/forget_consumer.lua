-- forget_consumer: remove a consumer that holds nothing; one that does keeps it, for others to claim.
-- KEYS stream
-- ARGV group consumer
-- OK | KEPT
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return { 'KEPT' } end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return { 'OK' }
