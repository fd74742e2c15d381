-- prune_workflows: forget the names of workflows that have no runs (any more); dry: only count them.
-- KEYS runs
-- ARGV dry workflow...
-- OK removed
--- include unindex
local runs, dry, removed = KEYS[1], ARGV[1] == '1', 0

for k = 2, #ARGV do
  if not dry then
    removed = removed + forget_workflow(runs, ARGV[k])
  elseif redis.call('EXISTS', runs .. ':workflow:' .. ARGV[k]) == 0 then
    removed = removed + 1
  end
end
return { 'OK', removed }
