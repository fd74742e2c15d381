-- bury: a command that cannot be applied goes to the dead stream, with the reason and all its fields.
-- Whoever acknowledges it buries it: an entry that was applied, or buried, is left alone.
-- KEYS stream dead
-- ARGV group entry offset reason detail deliveries word...
-- OK id | GONE
--- include clock terminal owner words
local words = words_from(7, 0)
redis.call('XLEN', KEYS[2])                              -- refuses a key of another type before any write
if drop(KEYS[1], ARGV[1], ARGV[2]) == 0 then return { 'GONE' } end
return { 'OK', redis.call('XADD', KEYS[2], '*', 'reason', ARGV[4], 'detail', ARGV[5], 'stream', KEYS[1], 'entry', ARGV[2],
  'deliveries', ARGV[6], 'at', clock(ARGV[3]), unpack(words)) }
