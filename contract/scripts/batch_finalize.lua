-- Every line has ended, or none will run any more: the outputs may be written. A canceled batch stays cancelling.
-- ARGV: batch, token.  Reply: the batch's status | 'waiting' (lines are under way) | 'lost'
local id = ARGV[1]
local key = batch_key(id)
if not holds(id, ARGV[2]) then return 'lost' end
if lines_under_way(id) > 0 then return 'waiting' end
local f = call('HMGET', key, 'status', 'fed', 'total', 'expires_ms', 'stopped')
if f[1] == 'in_progress' then
  if tonumber(f[2]) < tonumber(f[3]) and tonumber(f[4]) > now_ms() then return 'waiting' end
  call('HSET', key, 'status', 'finalizing', 'finalizing_ms', int(now_ms()))
elseif f[1] == 'cancelling' and tonumber(f[5]) < tonumber(f[2]) then
  return 'waiting'
end
return call('HGET', key, 'status')
