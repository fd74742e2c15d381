-- redrive: a dead letter's command goes back to its stream, if the letter is still there: once, whoever asks.
-- Its delivery count begins anew, and so does the time for which its names may be unknown.
-- One that was meant for a run that had its id before goes nowhere: its entry's time would tell nobody any more.
-- run: the hash of the run that the command is about; of no run where it makes one.
-- run_id: for a command that named no run, that of the run it would have made; else ''.
-- KEYS dead stream run
-- ARGV letter run_id
-- OK entry | GONE | OTHER | FORMER
--- include since
local dead, stream, letter, run_id = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local OWN = { 'reason', 'detail', 'stream', 'entry', 'deliveries', 'at' }
local DROPPED = { tries = true, unknown_since = true, put_back = true }
local PREFIXED = {}
for _, name in ipairs(OWN) do PREFIXED['command.' .. name] = name end

local words = (redis.call('XRANGE', dead, letter, letter)[1] or {})[2]
if not words then return { 'GONE' } end
if words[6] ~= stream then return { 'OTHER' } end
local command = {}
for k = 2 * #OWN + 1, #words, 2 do
  local name = PREFIXED[words[k]] or words[k]
  if not DROPPED[name] then command[#command + 1], command[#command + 2] = name, words[k + 1] end
end
if #command == 0 then return { 'OTHER' } end
if sent_before(redis.call('HGET', KEYS[3], 'since'), words[8]) then return { 'FORMER' } end
if run_id ~= '' then command[#command + 1], command[#command + 2] = 'run_id', run_id end
local entry = redis.call('XADD', stream, '*', unpack(command))   -- first what a full server refuses
redis.call('XDEL', dead, letter)
return { 'OK', entry }
