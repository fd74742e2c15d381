-- drop: settle an entry whose command was applied before, and say how old it is.
-- KEYS stream
-- ARGV group entry offset acknowledge
-- OK age_ms
--- include clock terminal owner
if ARGV[4] == '1' then drop(KEYS[1], ARGV[1], ARGV[2]) end
return { 'OK', clock(ARGV[3]) - string.match(ARGV[2], '^%d+') }
