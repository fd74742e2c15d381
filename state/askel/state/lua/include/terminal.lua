-- Statuses that a run never leaves.
local TERMINAL = { completed = true, failed = true, cancelled = true }
