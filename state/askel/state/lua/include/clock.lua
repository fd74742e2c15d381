-- The server's time in milliseconds as text, moved by the offset that tests pass.
local function clock(offset)
  local t = redis.call('TIME')
  return string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(offset))
end
