-- renew: keep an entry that is pending for this consumer, if the owner or attempt nonce is still ours.
-- One that is pending for nobody, because somebody removed the consumer, nobody can have taken: whoever is
-- named takes it back. Where it is gone, or its group made anew, whoever is named goes on without it, and an
-- owner says that it lives.
-- KEYS stream hash history run
-- ARGV group consumer entry field nonce
-- OK length status | LOST
--- include clock terminal owner tolerant place nobody
local stream, hash, group, consumer, entry, field = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local is_mine = pending(stream, group, entry, consumer)
local held = not is_mine and redis.call('XPENDING', stream, group, entry, entry, 1)[1]
if not is_mine and (field == '' or (held and held[2] ~= NOBODY)) then return { 'LOST' } end
if field ~= '' and redis.call('HGET', hash, field) ~= ARGV[5] then return { 'LOST' } end
if is_mine then
  redis.call('XCLAIM', stream, group, consumer, 0, entry, 'JUSTID')
elseif place_of(stream, group, entry, (last_delivered(stream, group)))[1] == 'orphaned'
    or (held and #redis.call('XRANGE', stream, entry, entry) == 1) then
  redis.call('XCLAIM', stream, group, consumer, 0, entry, 'RETRYCOUNT', 1, 'FORCE', 'JUSTID')
elseif field == 'owner' then
  redis.call('HSET', hash, 'alive', clock('0'))
end
return { 'OK', redis.call('LLEN', KEYS[3]), redis.call('HGET', KEYS[4], 'status') or '' }
