-- adopt: own an inline run, whose lease is the run lock itself, and load it.
-- KEYS run ctl history lock
-- ARGV owner lease_ms robbed_limit
-- OK turn workflow status input history | NOTFOUND | TERMINAL status | MANAGED | BUSY pttl | POISON
--- include terminal owner activate
local run, ctl, history, lock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner, lease_ms, robbed_limit = ARGV[1], ARGV[2], ARGV[3]

local status = redis.call('HGET', run, 'status')
if not status then return { 'NOTFOUND' } end
if TERMINAL[status] then return { 'TERMINAL', status } end
local x = redis.call('HMGET', ctl, 'owner', 'turn', 'robbed', 'start')
if x[4] then return { 'MANAGED' } end                      -- daemons drive it, by its token
local pttl = busy(ctl, lock, nil, owner)
if pttl then return { 'BUSY', pttl } end
return activated({ run = run, ctl = ctl, history = history, lock = lock }, owner, lease_ms, robbed_limit, x)
