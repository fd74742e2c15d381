-- erase_orphan: remove the keys that are left of a run which is gone; dry: only count them.
-- KEYS run ctl history lock steps step_stem step_lock_stem run_state stray...
-- ARGV dry
-- OK keys | EXISTS
--- include tolerant past erase
local k = { run = KEYS[1], ctl = KEYS[2], history = KEYS[3], lock = KEYS[4], steps = KEYS[5], step_stem = KEYS[6],
  step_lock_stem = KEYS[7], run_state = KEYS[8] }
local dry = ARGV[1] == '1'

if redis.call('EXISTS', k.run) == 1 then return { 'EXISTS' } end
return { 'OK', erase(k, dry, { unpack(KEYS, 9) }) }
