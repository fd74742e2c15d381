-- Removes all keys of one run. k: ctl history lock steps step_stem step_lock_stem run_state run.
-- dry: only count. strays: further keys. Returns how many there were.
local function erase(k, dry, strays)
  local how, count = ({ [true] = 'EXISTS', [false] = 'UNLINK' })[dry], 0
  for _, name in ipairs(tolerant('LRANGE', k.steps, 0, -1) or {}) do
    if not dry then forget_past(k.step_stem .. name) end
    count = count + redis.call(how, k.step_stem .. name, k.step_lock_stem .. name)
  end
  for _, key in ipairs(strays) do count = count + redis.call(how, key) end
  return count + redis.call(how, k.run, k.ctl, k.history, k.lock, k.steps, k.run_state)
end
