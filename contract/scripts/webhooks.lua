-- What the webhook scripts share, behind the prelude.
--
-- A delivery is one event for one receiver: an endpoint of the tenant, or the host of a task's own webhook. Per receiver
-- a sorted set of deliveries by the time they are due; over all receivers one by the time at which the receiver may be
-- called next. A receiver that fails is called by one at a time, and rests for ever longer: it slows nobody else.

local RECEIVERS, SENDING, OUTBOX = 'ovis:hooks:receivers', 'ovis:hooks:sending', 'ovis:outbox'

local EVENT_TYPES = { 'task.succeeded', 'task.failed', 'task.canceled', 'task.expired', 'task.part.succeeded' }

local function delivery_key(id) return 'ovis:delivery:' .. id end
local function endpoint_key(id) return 'ovis:hooks:endpoint:' .. id end
local function due_key(receiver) return 'ovis:hooks:due:' .. receiver end
local function health_key(receiver) return 'ovis:hooks:health:' .. receiver end

-- The sorted sets must say when the receiver may be called next.
local function settle_receiver(receiver)
  local first = call('ZRANGE', due_key(receiver), 0, 0, 'WITHSCORES')
  local f = call('HMGET', health_key(receiver), 'sending', 'failures', 'open_until_ms')
  local most = tonumber(f[2] or '0') > 0 and 1 or MAX_SENDING
  if not first[1] or tonumber(f[1] or '0') >= most then
    call('ZREM', RECEIVERS, receiver)
  else
    call('ZADD', RECEIVERS, int(math.max(tonumber(first[2]), tonumber(f[3] or '0'))), receiver)
  end
end

local function count_sending(receiver, change)
  call('HINCRBY', health_key(receiver), 'sending', change)
  call('EXPIRE', health_key(receiver), DELIVERY_LIFE_S)
end

local function schedule(id, receiver, due_ms)
  call('HSET', delivery_key(id), 'due_ms', int(due_ms))
  call('ZADD', due_key(receiver), int(due_ms), id)
  settle_receiver(receiver)
end

-- One event, or delivery, less that the task's record has to wait for.
local function let_go(task)
  local key = task_key(task)
  if call('EXISTS', key) == 0 or call('HINCRBY', key, 'hooks', -1) > 0 then return end
  call('HDEL', key, 'hooks')
  local expires = call('HGET', key, 'expires_ms')
  if expires then call('ZADD', 'ovis:retention', 'XX', expires, task) end
end

local function add_line(id, line)
  local before = call('HGET', delivery_key(id), 'log')
  call('HSET', delivery_key(id), 'log', before and (before .. '\n' .. line) or line)
end

local function end_delivery(id, status, why)
  local key = delivery_key(id)
  local f = call('HMGET', key, 'task', 'receiver', 'detached')
  call('HSET', key, 'status', status, 'ended_ms', int(now_ms()))
  if why then call('HSET', key, 'why', why) end
  call('HDEL', key, 'token', 'due_ms')
  call('EXPIRE', key, DELIVERY_LOG_S)
  call('ZREM', due_key(f[2]), id)
  settle_receiver(f[2])
  if f[1] and not f[3] then let_go(f[1]) end
end

-- Ids sort by time; the same event for the same receiver has the same id.
local function delivery_id(event, receiver)
  local parts = { event.task or event.nonce, event.run or 0, event.type, event.part or '', receiver }
  return string.format('whd_%012x', event.at_ms) .. string.sub(redis.sha1hex(table.concat(parts, '\n')), 1, 20)
end

local function create_delivery(event, tenant, receiver, endpoint, url)
  local id = delivery_id(event, receiver)
  local key = delivery_key(id)
  if call('EXISTS', key) == 1 then return id end
  local now = now_ms()
  call('HSET', key, 'tenant', tenant, 'receiver', receiver, 'type', event.type, 'event', cjson.encode(event),
    'status', 'pending', 'tries', 0, 'created_ms', int(now), 'give_up_ms', int(now + 1000 * DELIVERY_LIFE_S))
  if endpoint then call('HSET', key, 'endpoint', endpoint) else call('HSET', key, 'url', url) end
  if event.task then
    call('HSET', key, 'task', event.task)
    call('HINCRBY', task_key(event.task), 'hooks', 1)
  end
  local index = 'ovis:deliveries:' .. tenant
  call('ZADD', index, 0, id)
  -- The records of those before this one have expired.
  local oldest = string.format('(whd_%012x', now - 2000 * (DELIVERY_LIFE_S + DELIVERY_LOG_S))
  call('ZREMRANGEBYLEX', index, '-', oldest)
  schedule(id, receiver, now)
  return id
end

-- Why a delivery that is due can't be sent; nil where it can.
local function refusal(id, now)
  local f = call('HMGET', delivery_key(id), 'task', 'endpoint', 'detached', 'give_up_ms')
  if f[1] and not f[3] and call('EXISTS', task_key(f[1])) == 0 then return 'the task was deleted' end
  if f[2] then
    local enabled = call('HGET', endpoint_key(f[2]), 'enabled')
    if not enabled then return 'the endpoint was deleted' end
    if enabled ~= '1' then return 'the endpoint is disabled' end
  end
  if tonumber(f[4]) <= now then return 'the receiver was away for too long' end
end

-- End what waits for a receiver; whatever is beyond the limit ends when it is due.
local function cancel_waiting(receiver, why)
  for _, id in ipairs(call('ZRANGE', due_key(receiver), 0, 999)) do end_delivery(id, 'canceled', why) end
end

-- Whether the endpoint is the tenant's.
local function owns(tenant, id) return call('HGET', endpoint_key(id), 'tenant') == tenant end

local function subscribe(tenant, id, enabled, events)
  for _, type in ipairs(EVENT_TYPES) do
    local wants = enabled and string.find(events, '"' .. type .. '"', 1, true)
    call(wants and 'SADD' or 'SREM', 'ovis:hooks:on:' .. tenant .. ':' .. type, id)
  end
end

local function disable(tenant, id, why)
  call('HSET', endpoint_key(id), 'enabled', '0', 'disabled_why', why)
  subscribe(tenant, id, false, '')
  cancel_waiting(id, 'the endpoint is disabled')
end
