-- The answers in order: the step's hash for an insertion that found its step, and for a new attempt.
local answers = {}
for k = 1, last_load do answers[k] = loads[k] and redis.call('HGETALL', loads[k]) or '' end
