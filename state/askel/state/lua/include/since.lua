-- Tells whether a command was sent before the run that has the id now was made, where another had it before.
-- since: a field of the run's hash; entry: the id of the command's entry, which begins with its time.
local function sent_before(since, entry)
  return since and entry ~= '' and tonumber(string.match(entry, '^%d+')) < tonumber(since)
end
