-- Ask for a batch's end: no line begins any more, those under way are asked to end.
-- ARGV: batch, tenant.  Reply: 'missing' | the status after the call
local id = ARGV[1]
local key = batch_key(id)
local f = call('HMGET', key, 'tenant', 'status', 'token')
if f[1] ~= ARGV[2] then return 'missing' end
if f[2] ~= 'validating' and f[2] ~= 'in_progress' then return f[2] end
local now = int(now_ms())
call('HSET', key, 'status', 'cancelling', 'cancelling_ms', now)
if not f[3] then call('ZADD', BATCHES, 'XX', now, id) end
return 'cancelling'
