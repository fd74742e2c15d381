-- What becomes of P:step-history:{stepId} when the step hash goes, or gets another name.
--- include history_of
local function forget_past(step)
  local stem, id = history_of(step, redis.pcall('HGET', step, 'stepId'))
  if stem then redis.call('UNLINK', stem .. id) end
end

-- The hash has its new id by now; id: the one before.
local function rename_past(step, id)
  local stem, new_id, name = history_of(step, redis.call('HGET', step, 'stepId'))
  if not stem then return end
  for _, text in ipairs(redis.call('ZRANGE', stem .. id, 0, -1)) do
    local ok, member = pcall(cjson.decode, text)
    if ok and type(member) == 'table' and tonumber(member.attemptCount) then
      member.stepId, member.stepName = new_id, name
      redis.call('ZADD', stem .. new_id, member.attemptCount, cjson.encode(member))
    end
  end
  redis.call('UNLINK', stem .. id)
end
