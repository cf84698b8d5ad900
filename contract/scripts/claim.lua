-- Take the first part of the tenant with the least virtual time.
-- ARGV: queue, token, worker
-- Reply: nil, or {task, tenant, part, attempt number, queued ms, spec}
local queue, token, worker = ARGV[1], ARGV[2], ARGV[3]

local function reply(a)
  local key = task_key(a.task)
  local f = call('HMGET', key, 'p' .. a.part .. ':attempts', 'spec')
  return { a.task, a.tenant, a.part, f[1], int(a.queued_ms), f[2] }
end

local mine = find_attempt(token) -- our own retry after a lost reply
if mine then return reply(mine) end

local tenants = queue_key(queue, 'tenants')
while true do
  local first = call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
  if not first[1] then return nil end
  local tenant, before = first[1], tonumber(first[2])
  local popped = call('ZPOPMIN', tenant_key(queue, tenant))
  local id, part
  if popped[1] then
    id, part = string.match(popped[1], '^(.+)/(%d+)$')
    left_queue(queue, tenant)
  else
    call('ZREM', tenants, tenant)
  end
  local key = id and task_key(id)
  local p = part and 'p' .. part
  if key and call('HGET', key, p .. ':state') == 'waiting' then
    local now = now_ms()
    local f = call('HMGET', key, 'weight', p .. ':cost', 'status', 'created_ms')
    local weight, cost = tonumber(f[1]), tonumber(f[2])
    call('SET', queue_key(queue, 'clock'), string.format('%.6f', before))
    set_virtual_time(queue, tenant, before + cost / weight)
    call('HSET', key, p .. ':state', 'running', p .. ':token', token)
    call('HINCRBY', key, p .. ':attempts', 1)
    call('HINCRBY', key, 'attempts', 1)
    if f[3] == 'queued' then call('HSET', key, 'status', 'running') end
    call('HSETNX', key, 'started_ms', int(now))
    local a = { queue = queue, tenant = tenant, task = id, part = part, worker = worker, cost = cost,
      weight = weight, started_ms = now, queued_ms = now - tonumber(f[4]) }
    call('HSET', 'ovis:attempts', token, cjson.encode(a))
    call('ZADD', 'ovis:leases', int(now + LEASE_MS), token)
    call('HINCRBY', queue_key(queue, 'stats'), 'running', 1)
    return reply(a)
  end
end
