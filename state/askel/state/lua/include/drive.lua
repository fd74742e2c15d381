-- Wakes who decides on a run: a token where nobody drives it, else the owner, told once a turn.
-- x: token, owner, start, nudged of the ctl hash. Returns the owner that the caller should nudge.
local WAKE = { 'token', 'owner', 'start', 'nudged' }

-- Refuses a stream of another type before any write, where drive would write to it.
local function check_drive(commands, x)
  if x[3] and not x[1] then redis.call('XLEN', commands) end
end

local function drive(ctl, commands, run_id, x)
  if not x[3] then return '' end                       -- a run that another program drives
  if not x[1] then
    redis.call('HSET', ctl, 'token', redis.call('XADD', commands, '*', 'type', 'run.advance', 'run_id', run_id))
    return ''
  end
  if not x[2] or x[4] == '1' then return '' end
  redis.call('HSET', ctl, 'nudged', '1')
  return x[2]
end
