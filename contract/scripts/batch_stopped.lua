-- Lines up to one have been asked to end.  ARGV: batch, token, line.  Reply: 'ok' | 'stale'
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 'stale' end
call('HSET', batch_key(id), 'stopped', ARGV[3], 'losses', 0)
return 'ok'
