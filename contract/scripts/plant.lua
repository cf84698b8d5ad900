-- Commit a plan by its token: every part of the task at once, waiting. A late or repeated commit changes nothing.
-- Nothing is planted where the tenant, or the queue, has as many waiting parts as it may: the plan has to rest then.
-- ARGV: token, task, cost of a part, cost of the summary that follows the parts or '', unit of each part as JSON...
-- Reply: 'committed' | 'tenant_full' | 'queue_full' | 'canceled' | 'stale'
local token, id, cost, summary_cost = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local FIXED = 4
local key = task_key(id)
local a = find_attempt(token)
if not a then
  local f = call('HMGET', key, 'pplan:token', 'pplan:state')
  if f[1] == token and f[2] ~= 'running' then -- our own retry after a lost reply
    return f[2] == 'canceled' and 'canceled' or 'committed'
  end
  return 'stale'
end
local f = call('HMGET', key, 'stop', 'queue', 'tenant', 'tenant_limit', 'queue_limit', 'band', 'created_ms')
local stopping, queue, tenant = f[1] and f[1] ~= '', f[2], f[3]
if queue and not stopping then
  if call('ZCARD', tenant_key(queue, tenant)) >= tonumber(f[4]) then return 'tenant_full' end
  if number(queue_key(queue, 'stats'), 'waiting') >= tonumber(f[5]) then return 'queue_full' end
end
drop_attempt(a)
if not queue then return 'stale' end
add_history(a, stopping and 'stopped' or 'succeeded')
if stopping then
  charge(a.queue, a.tenant, -a.cost, a.weight)
  end_part(id, 'plan', 'canceled')
  wake(a.queue, 1)
  return 'canceled'
end
local parts = #ARGV - FIXED
call('HSET', key, 'pplan:state', 'succeeded', 'stage', 'parts', 'parts_total', parts)
if summary_cost ~= '' then call('HSET', key, 'summary_cost', summary_cost) end
for part = 0, parts - 1 do
  local p = 'p' .. part
  call('HSET', key, p .. ':state', 'waiting', p .. ':attempts', 0, p .. ':cost', cost, p .. ':unit',
    ARGV[FIXED + 1 + part])
  enqueue(queue, tenant, id, part, tonumber(f[6]), tonumber(f[7]), 0)
end
wake(queue, parts)
wake(a.queue, 1)
return 'committed'
