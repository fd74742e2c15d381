-- Tells whether an entry or a nonce made a generation before this one.
local function made_earlier(was, maker)
  return maker ~= '' and was and string.find(was, ' ' .. maker .. ' ', 1, true)
end

-- What may take the place of a run with this status: its next generation, where the policy says so.
local function gives_way(policy, status)
  return policy == 'terminate-existing' or (policy == 'after-terminal' and TERMINAL[status])
end
