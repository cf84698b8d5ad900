-- Forget one ended task whose retention is over; its blobs must be gone already. A task that was retried meanwhile stays.
-- ARGV: task, seconds for which the id answers "purged".  Reply: 1 | 0
local id = ARGV[1]
local key = task_key(id)
local f = call('HMGET', key, 'tenant', 'status')
local tenant = f[1]
call('ZREM', 'ovis:retention', id)
if not tenant or not ENDED[f[2]] then return 0 end
call('ZREM', 'ovis:index:' .. tenant, id)
call('ZREM', 'ovis:dead:' .. tenant, id)
call('UNLINK', key, 'ovis:events:' .. id)
call('SET', 'ovis:purged:' .. id, tenant, 'EX', ARGV[2])
return 1
