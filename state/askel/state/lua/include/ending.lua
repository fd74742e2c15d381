-- A list that moved the run writes its hash, the indexes and the events. An ended run keeps no more
-- than the list that ended it: a status alone is known by itself.
--- include index change
local ended, alone = TERMINAL[status], place == 1
local fields = (ended and alone) and {} or { 'changes', ended and nonce or with_write(r[2], nonce) }
if ended and r[2] and alone then redis.call('HDEL', run, 'changes') end
for _, name in ipairs({ 'output', 'error' }) do
  if moved_run[name] ~= '' then fields[#fields + 1] = name fields[#fields + 1] = moved_run[name] end
end
if moved_run.left and moved_run.error == '' then redis.call('HDEL', run, 'error') end
change({ run = run, events = moved_run.events, runs = moved_run.runs }, run_id, r[1], status, at, seq, fields)
