-- Every status that a run can have.
local STATUSES = { 'running', 'suspended', 'stalled', 'completed', 'failed', 'cancelled' }
local KNOWN = {}
for _, status in ipairs(STATUSES) do KNOWN[status] = true end
