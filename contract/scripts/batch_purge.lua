-- Forget an ended batch whose time is over.  ARGV: batch, seconds for which the id answers "purged".  Reply: 1 | 0
local id = ARGV[1]
local key = batch_key(id)
local f = call('HMGET', key, 'tenant', 'ended_ms')
call('ZREM', BATCH_RETENTION, id)
if not f[2] then return 0 end
call('UNLINK', key)
call('ZREM', 'ovis:batches:' .. f[1], id)
call('SET', 'ovis:purged:' .. id, f[1], 'EX', ARGV[2])
return 1
