-- The writes that a run remembers by their nonces, so that a late copy of one changes nothing.
local REMEMBERED = 192                                   -- characters: the last 24 writes

local function was_written(changes, nonce)
  return changes and string.find(changes, nonce, 1, true)
end

local function with_write(changes, nonce)
  return string.sub((changes or '') .. nonce, -REMEMBERED)
end
