-- ARGV: task, tenant
-- Reply: 'missing' | the status after the call
local id, tenant = ARGV[1], ARGV[2]
local key = task_key(id)
local f = call('HMGET', key, 'tenant', 'status', 'queue', 'parts_total')
if f[1] ~= tenant then return 'missing' end
if f[2] ~= 'queued' and f[2] ~= 'running' then return f[2] end
call('HSET', key, 'stop', 'cancel')
if f[2] == 'running' then call('HSET', key, 'status', 'canceling') end
local running = false
for part = 0, tonumber(f[4]) - 1 do
  local state = call('HGET', key, 'p' .. part .. ':state')
  if state == 'running' then running = true end
  if state == 'waiting' then
    dequeue(f[3], tenant, id, part)
    call('HSET', key, 'p' .. part .. ':state', 'canceled')
    call('HINCRBY', key, 'parts_canceled', 1)
  end
end
if running then
  call('PUBLISH', 'ovis:stop', id)
else
  end_task_if_last(id)
end
return call('HGET', key, 'status')
