-- Told of each step before its hash is removed, or after it was renamed (id: its step id before). Where
-- compat is on, the include of this name in lua/pikku stands in its place and does what else is to do.
local function forget_past() end
local function rename_past() end
