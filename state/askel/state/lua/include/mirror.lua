-- Told of each change of an attempt, and when its step was written. Nobody listens: where compat is
-- on, the include of this name in lua/pikku stands in its place.
local function moved() end
local function mirror() end
