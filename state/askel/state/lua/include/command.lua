-- The id of the command that made the run, if it had one, as its first entry has it: JSON text without the quotes.
-- A quote inside of JSON text is escaped, so that no other member looks like this one.
local function command_of(history)
  local first = redis.call('LINDEX', history, 0) or ''
  local _, opening = string.find(first, '"command":"', 1, true)
  local from = opening and opening + 1
  while from do
    local at = string.find(first, '["\\]', from)
    if not at then return '' end
    if string.sub(first, at, at) == '"' then return string.sub(first, opening + 1, at - 1) end
    from = at + 2
  end
  return ''
end

-- Stands for the id of a command, as JSON text has it, among what made a generation: short, without blanks.
local function word_of(command_id)
  return command_id == '' and '' or 'id.' .. string.sub(redis.sha1hex(command_id), 1, 16)
end
