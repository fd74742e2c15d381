-- The items of a turn: records behind one another in ARGV.
-- result:   key expect attempt nonce becomes outcome json name final seen timer
-- (nonce * is not compared; timer: what need not fire any more, or '')
-- decision: key expect attempt becomes new_attempt nonce name body delay timer queue nfields field... nwords word...
-- A result that is not final leaves the hash to the decision on the same step that stands in the same turn.
local function check_results(n, i)
  local found, settled = {}, {}
  for k = 1, n do
    local s = redis.call('HMGET', KEYS[tonumber(ARGV[i])], unpack(FIELDS))
    local nonce = ARGV[i + 3]
    if s[1] ~= ARGV[i + 1] or s[2] ~= ARGV[i + 2] or (nonce ~= '*' and (s[3] or '') ~= nonce) then return nil end
    if ARGV[i + 10] ~= '' then redis.call('ZCARD', KEYS[6]) end
    found[k], settled[ARGV[i]], i = s, true, i + 11
  end
  return found, settled, i
end

local function check_decisions(n, i, settled)
  local starts, begins = {}, false
  for k = 1, n do
    starts[k], begins = i, begins or ARGV[i + 3] ~= 'pending'
    if not settled[ARGV[i]] then
      local s = redis.call('HMGET', KEYS[tonumber(ARGV[i])], 'status', 'attemptCount')
      if (s[1] or '') ~= ARGV[i + 1] or (s[2] or '') ~= ARGV[i + 2] then return nil end
    end
    i = i + 12 + tonumber(ARGV[i + 11])
    i = i + 1 + tonumber(ARGV[i])
  end
  return starts, begins
end

-- Refuses keys of another type before any write: the steps' own were read.
local function check_written(starts, timers, steps)
  local inserts, waits = false, false
  for _, i in ipairs(starts) do
    local queue = ARGV[i + 10]
    inserts, waits = inserts or ARGV[i + 1] == '', waits or ARGV[i + 9] ~= ''
    if queue ~= '' then redis.call('XLEN', KEYS[tonumber(queue)]) end
  end
  if inserts then redis.call('LLEN', steps) end
  if waits then redis.call('ZCARD', timers) end
end

local function write_results(found, i, at, entries)
  for k = 1, #found do
    local becomes, outcome, json, final = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 8] == '1'
    if final then
      redis.call('HSET', KEYS[tonumber(ARGV[i])], 'status', becomes == 'lost' and 'failed' or becomes, outcome, json, 'updatedAt', at)
    end
    moved(KEYS[tonumber(ARGV[i])], found[k][2], becomes, outcome, json)
    local tail = final and becomes ~= 'succeeded' and ',"final":true' or ''
    entries[#entries + 1] = closed(found[k], at, ARGV[i + 7], becomes, outcome, json, tail .. ',"seen":' .. ARGV[i + 9])
    if ARGV[i + 10] ~= '' then redis.call('ZREM', KEYS[6], ARGV[i + 10]) end
    i = i + 11
  end
end

local function write_decisions(starts, at, entries, names, timers)
  for _, i in ipairs(starts) do
    local key, last = KEYS[tonumber(ARGV[i])], i + 11 + tonumber(ARGV[i + 11])
    local body, delay, queue = ARGV[i + 7], ARGV[i + 8], ARGV[i + 10]
    if ARGV[i + 1] == '' then
      names[#names + 1] = ARGV[i + 6]
      redis.call('HSET', key, 'status', ARGV[i + 3], 'attemptCount', ARGV[i + 4], 'nonce', ARGV[i + 5], 'createdAt', at, 'updatedAt', at, unpack(ARGV, i + 12, last))
    else
      redis.call('HSET', key, 'status', ARGV[i + 3], 'attemptCount', ARGV[i + 4], 'nonce', ARGV[i + 5], 'updatedAt', at, unpack(ARGV, i + 12, last))
    end
    if delay ~= '' then
      local due = string.format('%.0f', at + delay)
      if ARGV[i + 9] ~= '' then redis.call('ZADD', timers, due, ARGV[i + 9]) end   -- else kept by the owner
      body = body .. ',"due":' .. due
    end
    if queue ~= '' then redis.call('XADD', KEYS[tonumber(queue)], '*', unpack(ARGV, last + 2, last + 1 + tonumber(ARGV[last + 1]))) end
    moved(key, ARGV[i + 4], ARGV[i + 3])
    entries[#entries + 1] = opened(at, body)
  end
end
