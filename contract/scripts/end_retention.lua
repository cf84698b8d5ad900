-- End an ended task's retention at once: it may be purged, and can't be retried any more.
-- ARGV: task, tenant.  Reply: 'missing' | 'due' | the status of a task that hasn't ended
local id, key = ARGV[1], task_key(ARGV[1])
local f = call('HMGET', key, 'tenant', 'status')
if f[1] ~= ARGV[2] then return 'missing' end
if not ENDED[f[2]] then return f[2] end
local now = int(now_ms())
call('HSET', key, 'expires_ms', now)
call('ZADD', 'ovis:retention', now, id)
return 'due'
