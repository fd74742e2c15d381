-- The fields of an entry among the arguments, from this one on: read and checked before any write, since what
-- XADD refuses after that would be lost together with the entry whose place it was to take.
local function words_from(first, least)
  local words = { unpack(ARGV, first) }
  if #words < least or #words % 2 == 1 then error('ERR ' .. #words .. ' words are no fields of an entry') end
  return words
end
