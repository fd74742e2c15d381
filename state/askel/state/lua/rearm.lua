-- rearm: a timer that is gone is set again for the time that the history says, if its step still waits for it.
-- One whose time has come may be on its way: then its command is looked for among the next entries of the stream.
-- opening: what the history entry says that set it, but for the times; it is among the last reach ones.
-- Nothing is set where the run has a token: who drives it may be about to set it, or to end the step.
-- KEYS run ctl step history timers commands
-- ARGV run_id name status attempt member opening reach offset dry
-- OK due | FIRED due | DRIVEN due | MOVED | UNKNOWN
--- include clock
local run, ctl, step, history, timers, commands = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local run_id, name, status, attempt, member = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local opening, reach, dry = ARGV[6], tonumber(ARGV[7]), ARGV[9] == '1'
local LOOKED_AT = 100

local s = redis.call('HMGET', step, 'status', 'attemptCount')
if redis.call('HGET', run, 'status') ~= 'running' or s[1] ~= status or s[2] ~= attempt
    or redis.call('ZSCORE', timers, member) then return { 'MOVED' } end

local function due_of()
  local last = redis.call('LLEN', history) - 1
  local first = math.max(last - reach + 1, 0)
  while last >= first do
    local batch = redis.call('LRANGE', history, math.max(last - 19, first), last)
    for k = #batch, 1, -1 do
      local from = string.match(batch[k], '^{"at":%d+,()') or 1
      local is_it = string.sub(batch[k], from, from + #opening - 1) == opening
      local due = is_it and string.match(batch[k], ',"due":(%d+)}$')
      if due then return due end
    end
    last = last - 20
  end
end

local function is_on_its_way(due)
  local entries = redis.call('XRANGE', commands, due, '+', 'COUNT', LOOKED_AT)
  for _, entry in ipairs(entries) do
    local words = {}
    for k = 1, #entry[2], 2 do words[entry[2][k]] = entry[2][k + 1] end
    if words.type == 'timer.fire' and words.run_id == run_id and words.step_name == name then return true end
  end
  return #entries == LOOKED_AT                           -- who knows what stands behind them
end

local due = due_of()
if not due then return { 'UNKNOWN' } end
if redis.call('HEXISTS', ctl, 'token') == 1 then return { 'DRIVEN', due } end
if tonumber(due) <= tonumber(clock(ARGV[8])) and is_on_its_way(due) then return { 'FIRED', due } end
if not dry then redis.call('ZADD', timers, 'NX', due, member) end
return { 'OK', due }
