-- Where the token of a run may be: on the stream of its start, or on the default one. Streams give out
-- their ids each on its own, so an entry with the token's id that drives another run, or none, is not it.
local function streams_of_token(commands, queue)
  if queue and queue ~= '' then return { commands .. ':' .. queue, commands } end
  return { commands }
end

local function drives(entry, run_id)
  local words = {}
  for k = 1, #entry[2], 2 do words[entry[2][k]] = entry[2][k + 1] end
  return (words.type == 'run.start' or words.type == 'run.advance') and (words.run_id or run_id) == run_id
end
