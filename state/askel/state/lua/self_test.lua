-- self_test: which of these commands the caller may not run; each is given in a form that changes nothing.
-- They are harmless because the meta key is the hash of a deployment: where it is not, none is tried.
-- KEYS meta key...
-- ARGV ncommands {nwords word...}...
-- OK {name why...} | NOMETA
if not redis.call('HGET', KEYS[1], 'store') then return { 'NOMETA' } end
local denied, i = {}, 2
for _ = 1, tonumber(ARGV[1]) do
  local last = i + tonumber(ARGV[i])
  local reply = redis.pcall(unpack(ARGV, i + 1, last))
  local why = type(reply) == 'table' and reply.err
  if why and (string.find(why, 'NOPERM', 1, true) or string.find(why, 'ACL failure', 1, true)
      or string.find(why, 'user executing the script', 1, true)) then
    denied[#denied + 1] = ARGV[i + 1]
    denied[#denied + 1] = why
  end
  i = last + 1
end
return { 'OK', denied }
