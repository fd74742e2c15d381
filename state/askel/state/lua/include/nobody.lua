-- Has, as a consumer of the group, what was found pending for nobody: for an owner that lives to take
-- back, and once claim_idle_ms are over for the sweep. No process reads under this name.
local NOBODY = '-nobody'
