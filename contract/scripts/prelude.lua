-- What every script shares. The constants above this line are filled in from contract/store.py.
-- Keys are computed from ids, so these scripts need one Redis (not Redis Cluster, which kombu lacks too).

local call = redis.call

local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function int(value) return string.format('%.0f', value) end

local function task_key(id) return 'ovis:task:' .. id end
local function queue_key(queue, suffix) return 'ovis:q:' .. queue .. ':' .. suffix end
local function tenant_key(queue, tenant) return 'ovis:q:' .. queue .. ':t:' .. tenant end

local function number(key, field) return tonumber(call('HGET', key, field) or '0') end

-- Wake-ups ------------------------------------------------------------------------------------------------------

-- Push at most `most` wake-ups, up to min(waiting parts, twice the fleet's slots).
local function wake(queue, most)
  local stats = queue_key(queue, 'stats')
  local waiting = number(stats, 'waiting')
  local slots = math.max(1, number(stats, 'slots'))
  local missing = math.min(waiting, 2 * slots) - call('LLEN', queue)
  local pushed = 0
  while pushed < missing and pushed < most do
    local tag = 'wake-' .. int(call('INCR', 'ovis:wakeups'))
    local message = string.gsub(string.gsub(WAKEUP_MESSAGE, '@TAG@', tag), '@QUEUE@', queue)
    call('LPUSH', queue, message)
    pushed = pushed + 1
  end
  return pushed
end

-- Fair order ----------------------------------------------------------------------------------------------------

-- The tenant's virtual time in the queue; a tenant that was idle starts at the queue's clock, not in its past.
local function virtual_time(queue, tenant)
  local own = number(queue_key(queue, 'vt'), tenant)
  return math.max(own, tonumber(call('GET', queue_key(queue, 'clock')) or '0'))
end

local function set_virtual_time(queue, tenant, value)
  call('HSET', queue_key(queue, 'vt'), tenant, string.format('%.6f', value))
  call('ZADD', queue_key(queue, 'tenants'), 'XX', value, tenant)
end

-- Charge (or, with a negative cost, refund) a tenant.
local function charge(queue, tenant, cost, weight)
  local own = number(queue_key(queue, 'vt'), tenant)
  set_virtual_time(queue, tenant, math.max(0, own + cost / weight))
end

-- What the time costs for which an attempt held its slot outside the engine, out of the guess that the claim charged:
-- a slot that gives no tokens is kept from the other tenants as well. In the engine, tokens are the measure.
local function cost_of_time(a, engine_s)
  local outside_ms = now_ms() - a.started_ms - 1000 * engine_s
  return a.cost * math.max(0, math.min(1, outside_ms / FULL_CHARGE_MS))
end

-- Second and third attempts wait apart, oldest first: what they meet in an engine is limited (see claim.lua).
local function suspects_key(queue, kind) return queue_key(queue, 'suspects' .. kind) end

-- What a part's next attempt is: 1, 2, or 3 for the third and any later one.
local function next_kind(used) return math.min(used + 1, 3) end

-- A planned task has two parts that bear names and run on the queue io: 'plan' and 'assemble'. The others are numbers.
local IO_QUEUE = 'io'
local function queue_of(queue, part) return tonumber(part) and queue or IO_QUEUE end

-- Put a part where its next attempt is claimed from. `used` attempts have counted so far. A page counts as a
-- millisecond younger than the one before it, so that a file's pages are claimed in their order.
local function enqueue(queue, tenant, id, part, band, created_ms, used)
  local member = id .. '/' .. part
  call('SADD', 'ovis:queues', queue)
  if used > 0 then
    local added = call('ZADD', suspects_key(queue, next_kind(used)), int(created_ms), member)
    call('HINCRBY', queue_key(queue, 'stats'), 'waiting', added)
    return
  end
  local added = call('ZADD', tenant_key(queue, tenant), int(band * 1e13 + created_ms + (tonumber(part) or 0)), member)
  call('HINCRBY', queue_key(queue, 'stats'), 'waiting', added)
  local tenants = queue_key(queue, 'tenants')
  if not call('ZSCORE', tenants, tenant) then
    local start = virtual_time(queue, tenant)
    call('ZADD', tenants, start, tenant)
    call('HSET', queue_key(queue, 'vt'), tenant, string.format('%.6f', start))
  end
end

local function enqueue_from_record(id, part)
  local f = call('HMGET', task_key(id), 'queue', 'tenant', 'band', 'created_ms', 'p' .. part .. ':attempts')
  enqueue(queue_of(f[1], part), f[2], id, part, tonumber(f[3]), tonumber(f[4]), tonumber(f[5]))
end

-- A part from the very beginning of its attempts; its claims go on counting, so that no two store under one key. What
-- was assembled in an earlier run stays until another assembly takes its place.
local function plant_part(id, part, cost)
  local key, p = task_key(id), 'p' .. part
  call('HSET', key, p .. ':state', 'waiting', p .. ':attempts', 0, p .. ':cost', cost)
  call('HDEL', key, p .. ':token', p .. ':error')
  if part ~= 'assemble' then call('HDEL', key, p .. ':result') end
  enqueue_from_record(id, part)
end

local function drop_idle_tenant(queue, tenant)
  if call('EXISTS', tenant_key(queue, tenant)) == 0 then
    call('ZREM', queue_key(queue, 'tenants'), tenant)
  end
end

-- Take a waiting part out of wherever it waits.
local function dequeue(queue, tenant, id, part)
  local member = id .. '/' .. part
  local waiting = call('ZREM', tenant_key(queue, tenant), member)
    + call('ZREM', suspects_key(queue, 2), member) + call('ZREM', suspects_key(queue, 3), member)
  if waiting > 0 then
    call('HINCRBY', queue_key(queue, 'stats'), 'waiting', -1)
    drop_idle_tenant(queue, tenant)
  end
  call('ZREM', queue_key(queue, 'delayed'), member)
end

-- Events --------------------------------------------------------------------------------------------------------

-- Tell those who follow the task (see contract/events.py); the stream lives until the task is purged.
local function tell(id, event)
  local stream = 'ovis:events:' .. id
  event.run = number(task_key(id), 'run')
  call('XADD', stream, 'MAXLEN', '~', MAX_EVENTS, '*', 'event', cjson.encode(event))
  call('PUBLISH', stream, '')
end

local function set_status(id, status)
  call('HSET', task_key(id), 'status', status)
  tell(id, { kind = 'status', status = status })
end

-- Owe a webhook event to whoever wants it: the task's own webhook, or an endpoint of its tenant (see webhooks.lua). The
-- entry holds what a retry of the task would change before the event is delivered.
local function owe(id, type, part)
  local key = task_key(id)
  local f = call('HMGET', key, 'webhook', 'tenant', 'run', 'status', 'error', 'parts_total', 'parts_done',
    'parts_failed', 'started_ms')
  local own = f[1] and string.find(f[1], '"' .. type .. '"', 1, true)
  if not own and call('EXISTS', 'ovis:hooks:on:' .. f[2] .. ':' .. type) == 0 then return end
  call('HINCRBY', key, 'hooks', 1)
  call('RPUSH', 'ovis:outbox', cjson.encode({ task = id, type = type, part = part, run = tonumber(f[3]), status = f[4],
    error = f[5] or nil, parts_total = tonumber(f[6]), parts_done = tonumber(f[7]), parts_failed = tonumber(f[8]),
    started_ms = tonumber(f[9] or '0'), at_ms = now_ms() }))
end

-- Batches -------------------------------------------------------------------------------------------------------

-- Batches that haven't ended, by the time at which an io worker looks at them next; while one does, by its lease's end.
local BATCHES = 'ovis:batches-due'

local function batch_key(id) return 'ovis:batch:' .. id end
local function refused_key(id) return 'ovis:batch:' .. id .. ':refused' end

local function lines_under_way(id)
  local f = call('HMGET', batch_key(id), 'fed', 'completed', 'failed')
  return tonumber(f[1]) - tonumber(f[2]) - tonumber(f[3])
end

-- The task of a batch's line has ended, or (sign -1) runs again: the batch counts it, and goes on with its other lines.
local function count_line(key, status, sign)
  local id = call('HGET', key, 'batch')
  if not id then return end
  local f = call('HMGET', batch_key(id), 'status', 'token')
  if f[1] ~= 'in_progress' and f[1] ~= 'cancelling' then return end
  call('HINCRBY', batch_key(id), status == 'succeeded' and 'completed' or 'failed', sign)
  if status == 'expired' then call('HINCRBY', batch_key(id), 'late', sign) end
  if f[2] then return end -- whoever holds it sees to its next look
  local soon = lines_under_way(id) == 0 and 0 or BATCH_REFILL_MS
  call('ZADD', BATCHES, 'XX', 'LT', int(now_ms() + soon), id)
end

-- Ends ----------------------------------------------------------------------------------------------------------

local ENDED = { succeeded = true, failed = true, canceled = true, expired = true }

-- Un-ended tasks of the tenant, and bytes that their inputs hold, per tenant and per queue.
local function add_load(key, sign)
  local f = call('HMGET', key, 'bytes', 'tenant', 'queue')
  call('HINCRBY', 'ovis:load', 'n:' .. f[2], sign)
  local bytes = sign * tonumber(f[1] or '0')
  if bytes ~= 0 then
    call('HINCRBY', 'ovis:load', 't:' .. f[2], int(bytes))
    call('HINCRBY', 'ovis:load', 'q:' .. f[3], int(bytes))
  end
end

-- Count what a tenant used on this day (UTC).
local function count_use(tenant, name, amount)
  local key = 'ovis:usage:' .. tenant .. ':' .. int(math.floor(now_ms() / 86400000))
  call('HINCRBYFLOAT', key, name, amount)
  if call('TTL', key) < 0 then call('EXPIRE', key, USAGE_S) end
end

-- Each run of a task has the same time until its deadline.
local function set_deadline(id, now, seconds)
  local deadline = int(now + 1000 * tonumber(seconds))
  call('HSET', task_key(id), 'deadline_ms', deadline)
  call('ZADD', 'ovis:deadlines', deadline, id)
end

-- End the task: status, outbox entry and retention in one step (law 4).
local function end_task(id, status, error)
  local key = task_key(id)
  local now = now_ms()
  local expires = now + 1000 * number(key, 'retention_s')
  call('HSET', key, 'status', status, 'ended_ms', int(now), 'expires_ms', int(expires))
  call('HDEL', key, 'stage')
  if error and error ~= '' then call('HSET', key, 'error', error) end
  call('ZADD', 'ovis:retention', int(expires), id)
  call('ZREM', 'ovis:deadlines', id)
  add_load(key, -1)
  count_line(key, status, 1)
  count_use(call('HGET', key, 'tenant'), 'tasks_' .. status, 1)
  if error == EXHAUSTED_ERROR then call('ZADD', 'ovis:dead:' .. call('HGET', key, 'tenant'), int(now), id) end
  owe(id, 'task.' .. status)
  tell(id, { kind = 'status', status = status })
  call('PUBLISH', 'ovis:ended', id)
end

-- A planned task's usage is the sum of its parts', as JSON; `sign` is -1 where a part is taken out again.
local function add_usage(key, result, sign)
  local sum = cjson.decode(call('HGET', key, 'usage') or '{}')
  for name, value in pairs(cjson.decode(result).usage) do
    if type(value) == 'number' then sum[name] = (sum[name] or 0) + sign * value end
  end
  call('HSET', key, 'usage', cjson.encode(sum))
end

-- The parts of a planned task have ended: what comes next is ordered by the script that ended the last one.
local function advance(id, stage, total, done, failed, part_error)
  local key = task_key(id)
  if stage ~= 'parts' and stage ~= 'summary' then return end -- the plan's or the assembly's own end decides
  local f = call('HMGET', key, 'on_page_failure', 'summary_cost', 'queue')
  if done == 0 or (failed > 0 and f[1] == 'fail') then
    end_task(id, 'failed', part_error)
  elseif stage == 'parts' and f[2] then
    local p = 'p' .. total
    call('HSET', key, 'stage', 'summary', 'summary_part', total, 'parts_total', total + 1,
      p .. ':unit', '{"kind":"summary"}')
    plant_part(id, total, f[2])
    wake(f[3], 1)
  else
    call('HSET', key, 'stage', 'assembling')
    plant_part(id, 'assemble', total)
    wake(IO_QUEUE, 1)
  end
end

-- What follows from a part's end: the task ends with its last part. The first failed part's error is the task's.
local function settle(id)
  local key = task_key(id)
  local f = call('HMGET', key, 'parts_total', 'parts_done', 'parts_failed', 'parts_canceled', 'stop', 'part_error',
    'stage', 'pplan:state', 'passemble:state')
  local total, done, failed, canceled = tonumber(f[1]), tonumber(f[2]), tonumber(f[3]), tonumber(f[4])
  if done + failed + canceled < total then return end
  if f[5] and f[5] ~= '' then
    if f[8] == 'running' or f[9] == 'running' then return end
    if f[5] == 'deadline' then end_task(id, 'expired', DEADLINE_ERROR) else end_task(id, 'canceled') end
  elseif f[7] then advance(id, f[7], total, done, failed, f[6])
  elseif failed > 0 then end_task(id, 'failed', f[6])
  else end_task(id, 'succeeded') end
end

local COUNTERS = { succeeded = 'parts_done', failed = 'parts_failed', canceled = 'parts_canceled' }

local function end_part(id, part, state, error)
  local key = task_key(id)
  call('HSET', key, 'p' .. part .. ':state', state)
  if error and error ~= '' then call('HSET', key, 'p' .. part .. ':error', error) end
  if not tonumber(part) then -- plan and assemble: what they give is no part of the result
    if state == 'canceled' then settle(id)
    elseif state == 'failed' then end_task(id, 'failed', error)
    elseif part == 'assemble' then end_task(id, 'succeeded') end
    return
  end
  if error and error ~= '' then call('HSETNX', key, 'part_error', error) end
  call('HINCRBY', key, COUNTERS[state], 1)
  tell(id, { kind = 'part', part = tonumber(part), state = state })
  if state == 'succeeded' then owe(id, 'task.part.succeeded', tonumber(part)) end
  settle(id)
end

-- Attempts ------------------------------------------------------------------------------------------------------

local function find_attempt(token)
  local found = call('HGET', 'ovis:attempts', token)
  if not found then return nil end
  local a = cjson.decode(found)
  a.token = token
  return a
end

local function drop_attempt(a)
  call('HDEL', 'ovis:attempts', a.token)
  call('ZREM', 'ovis:leases', a.token)
  call('HINCRBY', queue_key(a.queue, 'stats'), 'running', -1)
  local held, field = queue_key(a.queue, 'held'), a.kind .. ':' .. a.worker
  if call('HINCRBY', held, field, -1) <= 0 then call('HDEL', held, field) end
end

-- One line of the part's history: who had it, from when to when, why it ended.
local function add_history(a, why)
  local field = 'p' .. a.part .. ':history'
  local line = cjson.encode({
    attempt = a.number, worker = a.worker, started_ms = a.started_ms, ended_ms = now_ms(), why = why })
  local before = call('HGET', task_key(a.task), field)
  call('HSET', task_key(a.task), field, before and (before .. '\n' .. line) or line)
end

-- Take an attempt back: its part waits again, or ends where it may not run again. `counts`: whether the try is used up.
-- `delay_ms`: how long the part rests before it may be claimed.
local function give_back(a, why, counts, delay_ms)
  drop_attempt(a)
  local key = task_key(a.task)
  if call('EXISTS', key) == 0 then return 'gone' end
  local p = 'p' .. a.part
  local stop = call('HGET', key, 'stop')
  add_history(a, why)
  call('HDEL', key, p .. ':token') -- a late commit by it must be refused, also where the part ends here
  local own = counts and tonumber(a.part) and not (stop and stop ~= '') -- no drain, outage or cancel
  charge(a.queue, a.tenant, (own and cost_of_time(a, 0) or 0) - a.cost, a.weight)
  if not counts then call('HINCRBY', key, p .. ':attempts', -1) end
  if stop and stop ~= '' then
    end_part(a.task, a.part, 'canceled')
    return 'canceled'
  end
  if number(key, p .. ':attempts') >= MAX_ATTEMPTS then
    end_part(a.task, a.part, 'failed', EXHAUSTED_ERROR)
    return 'exhausted'
  end
  call('HSET', key, p .. ':state', 'waiting')
  local f = call('HMGET', key, 'parts_total', 'planned')
  if a.part == 'plan' or (f[1] == '1' and not f[2]) then set_status(a.task, 'queued') end
  if delay_ms > 0 then
    call('ZADD', queue_key(a.queue, 'delayed'), int(now_ms() + delay_ms), a.task .. '/' .. a.part)
  else
    enqueue_from_record(a.task, a.part)
    wake(a.queue, 1)
  end
  return 'queued'
end

-- Take a waiting part out of the work for good.
local function stop_part(id, part, queue, tenant, state)
  if state ~= 'waiting' then return end
  dequeue(queue_of(queue, part), tenant, id, part)
  call('HSET', task_key(id), 'p' .. part .. ':state', 'canceled')
  if tonumber(part) then call('HINCRBY', task_key(id), 'parts_canceled', 1) end
end

-- Ask a task to end: waiting parts leave at once, running ones when their workers have let go.
local function stop_task(id, why)
  local key = task_key(id)
  local f = call('HMGET', key, 'tenant', 'status', 'queue', 'parts_total', 'pplan:state', 'passemble:state')
  if f[2] ~= 'queued' and f[2] ~= 'running' then return f[2] end
  call('HSET', key, 'stop', why)
  if f[2] == 'running' and why == 'cancel' then set_status(id, 'canceling') end
  local running = f[5] == 'running' or f[6] == 'running'
  stop_part(id, 'plan', f[3], f[1], f[5])
  stop_part(id, 'assemble', f[3], f[1], f[6])
  for part = 0, tonumber(f[4]) - 1 do
    local state = call('HGET', key, 'p' .. part .. ':state')
    if state == 'running' then running = true end
    stop_part(id, part, f[3], f[1], state)
  end
  if running then call('PUBLISH', 'ovis:stop', id) else settle(id) end
  return call('HGET', key, 'status')
end

-- Workers -------------------------------------------------------------------------------------------------------

local function count_slots(queue)
  local sum = 0
  for _, slots in ipairs(call('HVALS', queue_key(queue, 'slots'))) do sum = sum + tonumber(slots) end
  call('HSET', queue_key(queue, 'stats'), 'slots', sum, 'workers', call('ZCARD', queue_key(queue, 'workers')))
end

local function register(queue, worker, slots)
  call('SADD', 'ovis:queues', queue)
  call('ZADD', queue_key(queue, 'workers'), int(now_ms()), worker)
  call('HSET', queue_key(queue, 'slots'), worker, slots)
  count_slots(queue)
end
