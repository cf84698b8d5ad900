-- Take the next part for a worker: the first of the tenant with the least virtual time, or a suspect.
--
-- A part whose attempt ended without a result may be what ended it, and with it the attempts of its neighbours. So a
-- second attempt shares its engine with at most three other second attempts, and a third runs alone. One worker of a
-- queue at a time sees to suspects (it is in quarantine): it takes no new first attempts, and suspects once it is empty.
--
-- ARGV: queue, token, worker
-- Reply: nil, or {task, tenant, part, attempt number, claims so far, queued ms, spec, unit or ''}
local queue, token, worker = ARGV[1], ARGV[2], ARGV[3]

local function reply(a)
  local f = call('HMGET', task_key(a.task), 'spec', 'p' .. a.part .. ':unit')
  return { a.task, a.tenant, a.part, a.number, a.claims, int(a.queued_ms), f[1], f[2] or '' }
end

-- Run a part that was just taken out of its place; nil where it no longer waits.
local function start(id, part, before)
  local key, p = task_key(id), 'p' .. part
  if call('HGET', key, p .. ':state') ~= 'waiting' then return nil end
  local now = now_ms()
  local f = call('HMGET', key, 'weight', p .. ':cost', 'status', 'created_ms', 'tenant')
  local weight, cost, tenant = tonumber(f[1]), tonumber(f[2]), f[5]
  if before then
    call('SET', queue_key(queue, 'clock'), string.format('%.6f', before))
    set_virtual_time(queue, tenant, before + cost / weight)
  else
    charge(queue, tenant, cost, weight)
  end
  call('HSET', key, p .. ':state', 'running', p .. ':token', token)
  local used = call('HINCRBY', key, p .. ':attempts', 1)
  if tonumber(part) then call('HINCRBY', key, 'attempts', 1) end
  local claims = call('HINCRBY', key, p .. ':claims', 1)
  if f[3] == 'queued' then set_status(id, 'running') end
  call('HSETNX', key, 'started_ms', int(now))
  local a = { queue = queue, tenant = tenant, task = id, part = part, worker = worker, cost = cost, weight = weight,
    number = used, claims = claims, kind = math.min(used, 3), started_ms = now, queued_ms = now - tonumber(f[4]) }
  call('HSET', 'ovis:attempts', token, cjson.encode(a))
  call('ZADD', 'ovis:leases', int(now + LEASE_MS), token)
  call('HINCRBY', queue_key(queue, 'stats'), 'running', 1)
  call('HINCRBY', queue_key(queue, 'held'), a.kind .. ':' .. worker, 1)
  return reply(a)
end

local function take_suspect(kind)
  while true do
    local popped = call('ZPOPMIN', suspects_key(queue, kind))
    if not popped[1] then return nil end
    call('HINCRBY', queue_key(queue, 'stats'), 'waiting', -1)
    local id, part = string.match(popped[1], '^(.+)/(%w+)$')
    local started = start(id, part)
    if started then return started end
  end
end

local function take_first_attempt()
  local tenants = queue_key(queue, 'tenants')
  while true do
    local first = call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
    if not first[1] then return nil end
    local tenant, before = first[1], tonumber(first[2])
    local popped = call('ZPOPMIN', tenant_key(queue, tenant))
    drop_idle_tenant(queue, tenant)
    if popped[1] then
      call('HINCRBY', queue_key(queue, 'stats'), 'waiting', -1)
      local id, part = string.match(popped[1], '^(.+)/(%w+)$')
      local started = start(id, part, before)
      if started then return started end
    end
  end
end

local mine = find_attempt(token) -- our own retry after a lost reply
if mine then return reply(mine) end

local held = call('HMGET', queue_key(queue, 'held'), '1:' .. worker, '2:' .. worker, '3:' .. worker)
if held[3] then return nil end
if held[2] then
  if tonumber(held[2]) < MAX_SECOND_ATTEMPTS then return take_suspect(2) end
  return nil
end
local quarantine = queue_key(queue, 'quarantine')
local suspects = call('ZCARD', suspects_key(queue, 2)) + call('ZCARD', suspects_key(queue, 3))
local keeper = call('GET', quarantine)
if suspects > 0 and (not keeper or keeper == worker) then
  call('SET', quarantine, worker, 'PX', QUARANTINE_MS)
  if held[1] then return nil end
  local taken = take_suspect(2) or take_suspect(3)
  if taken then return taken end
end
if keeper == worker and suspects == 0 then call('DEL', quarantine) end
return take_first_attempt()
