-- due: which timers are due by the server's clock, and when the next one is; changes nothing.
-- KEYS timers
-- ARGV offset limit
-- OK now next member...
--- include clock
local now = clock(ARGV[1])
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local later = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { 'OK', now, later[2] or '', members }
