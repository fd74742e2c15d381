-- apply: what an embedding program changes in one run: every change of the list, or none of them.
-- A late copy is known by its nonce, which the run keeps for its last writes.
-- A definition in Lua costs only where it is reached: what few lists need is included there.
-- KEYS run ctl history lock commands steps key...
-- ARGV holder offset run_id nonce change...
-- OK owner at answer... | ALREADY answer... | NOTFOUND place | CONFLICT place | ILLEGAL place status | TERMINAL place status | SPENT place attempts | LOCKLOST
--- include clock entry mirror terminal holder written
local run, ctl, history, lock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, offset, run_id, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local r = redis.call('HMGET', run, 'status', 'changes')
if not r[1] then return { 'NOTFOUND', 0 } end
if was_written(r[2], nonce) then
  local kind, step = unpack(ARGV, 5, 6)
  return { 'ALREADY', kind == 'retry' and redis.call('HGETALL', KEYS[tonumber(step)]) or nil }
end
if lock_lost(lock, holder) then return { 'LOCKLOST' } end
--- include changes apply
local function define_the_rest()
--- include attempt of_run
end
local w = { run = run, status = r[1], at = clock(offset), steps = {}, order = {}, names = {}, entries = {}, vars = {}, load = {}, error = '' }
local answers, i, place = {}, 5, 0
while ARGV[i] do
  local again = AGAIN[ARGV[i]]
  local kind = again or ARGV[i]
  place = place + 1
  if not CHANGE[kind] then define_the_rest() end
  local word, detail = CHANGE[kind](w, i + 1, again)
  if word and word ~= 'ALREADY' then return { word, place, detail } end
  if not word then w.changed = true end
  answers[place] = word or ''
  if kind == 'retry' or (word and kind == 'insert') then w.load[place] = KEYS[tonumber(ARGV[i + 1])] end
  i = i + 1 + LENGTH[kind] - (again and 2 or 0)
end
if not w.changed then return { 'ALREADY', unpack(loaded(w, answers)) } end

--- include drive
redis.call('LLEN', history)                              -- keys of another type are refused before any write
if #w.names > 0 then redis.call('LLEN', KEYS[6]) end
if w.output then redis.call('XLEN', w.events) end
-- First a write that Redis accepts even when it is out of memory, so that an outcome always lands.
local x = w.wakes and redis.call('HMGET', ctl, unpack(WAKE))
if w.ends then redis.call('HDEL', ctl, 'nudged') end
write_steps(w)
mirror(w.at)
for name, json in pairs(w.vars) do redis.call('HSET', w.state, name, json) end
if #w.names > 0 then redis.call('RPUSH', KEYS[6], unpack(w.names)) end
local seq = #w.entries > 0 and redis.call('RPUSH', history, unpack(w.entries)) or redis.call('LLEN', history)
-- An ended run keeps no more than the list that ended it: a status alone is known by itself.
local ended, alone = TERMINAL[w.status], place == 1
local fields = (ended and alone) and {} or { 'changes', ended and nonce or with_write(r[2], nonce) }
if ended and r[2] and alone then redis.call('HDEL', run, 'changes') end
if w.output then                                         -- it moved, be it to where it was
--- include index change
  for _, name in ipairs({ 'output', 'error' }) do
    if w[name] and w[name] ~= '' then fields[#fields + 1] = name fields[#fields + 1] = w[name] end
  end
  if w.left and w.error == '' then redis.call('HDEL', run, 'error') end
  change({ run = run, events = w.events, runs = w.runs }, run_id, r[1], w.status, w.at, seq, fields)
else
  redis.call('HSET', run, 'updatedAt', w.at, unpack(fields))
end
local owner = ''
if w.wakes then owner = TERMINAL[w.status] and (x[2] or '') or drive(ctl, KEYS[5], run_id, x) end
return { 'OK', owner, w.at, unpack(loaded(w, answers)) }
