-- Send a delivery again, under its id: one that has ended from the first try on, one that waits at once.
-- ARGV: delivery, tenant.  Reply: 'pending' | 'missing' | 'sending' | why it can't be sent
local id, tenant = ARGV[1], ARGV[2]
local key = delivery_key(id)
local f = call('HMGET', key, 'tenant', 'status', 'receiver', 'task', 'body', 'endpoint', 'token')
if f[1] ~= tenant then return 'missing' end
if f[7] then return 'sending' end
local now = now_ms()
if f[6] then
  local enabled = call('HGET', endpoint_key(f[6]), 'enabled')
  if enabled ~= '1' then return enabled and 'the endpoint is disabled' or 'the endpoint was deleted' end
end
if f[2] ~= 'pending' then
  local there = f[4] and call('EXISTS', task_key(f[4])) == 1
  if f[4] and not there and not f[5] then return 'the task was deleted' end
  call('HSET', key, 'status', 'pending', 'tries', 0, 'give_up_ms', int(now + 1000 * DELIVERY_LIFE_S))
  call('HDEL', key, 'ended_ms', 'why', 'detached')
  call('PERSIST', key)
  if there then call('HINCRBY', task_key(f[4]), 'hooks', 1) elseif f[4] then call('HSET', key, 'detached', '1') end
end
call('HDEL', health_key(f[3]), 'open_until_ms')
schedule(id, f[3], now)
return 'pending'
