-- upsert_version: store a workflow definition; one that is stored already is left as it is.
-- A hash without a graph (the Node service makes one by a change of status) is no definition yet.
-- KEYS version
-- ARGV offset workflow graph_hash graph source status
-- OK | ALREADY | EXISTS
--- include clock
local version = KEYS[1]
local offset, workflow, graph_hash, graph, source, status = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local v = redis.call('HMGET', version, 'graph', 'source', 'status')
if v[1] then
  return { v[1] == graph and v[2] == source and v[3] == status and 'ALREADY' or 'EXISTS' }
end
redis.call('HSET', version, 'workflowName', workflow, 'graphHash', graph_hash, 'graph', graph,
  'source', source, 'status', status, 'createdAt', clock(offset))
return { 'OK' }
