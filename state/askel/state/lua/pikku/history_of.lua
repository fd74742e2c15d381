-- Where the history of a step is: what its keys begin with, the step's id and its name. The prefix
-- stands in the step's own key, {P}:step:{runId}:{stepName}, and a step id is
-- {runId}:{stepName}:{suffix}. A step with any other id has no history that Node would find.
local function history_of(step, id)
  local pair = type(id) == 'string' and string.match(id, '^(.*):')
  if not pair or string.sub(step, -#pair - 6) ~= ':step:' .. pair then return nil end
  return string.sub(step, 1, #step - #pair - 6) .. ':step-history:', id, string.match(pair, '^[^:]*:(.*)$')
end
