-- ARGV: id, tenant, queue, cost, weight, band, retention_s, spec, idempotency key or '', body hash,
--       idempotency ttl s, most waiting parts of the tenant, of the queue, webhook or '', number of parts,
--       bytes of the inputs, most bytes of the tenant, of the queue, deadline s or '',
--       what becomes of a planned task with failed pages ('succeed'|'fail'), or '' for a task that needs no plan,
--       most un-ended tasks of the tenant,
--       for a line of a batch: the batch, the token of who holds it, the line's number, the byte after it; or '' each
-- Reply: {'created'|'exists'|'conflict'|'tenant_full'|'queue_full'|'stale', id, for 'created' the task's created_ms}
local id, tenant, queue = ARGV[1], ARGV[2], ARGV[3]
local key = task_key(id)
local made = call('HGET', key, 'created_ms')
if made then return { 'created', id, made } end -- our own retry after a lost reply

-- A line runs once: only while its batch is at it, by whoever holds the batch.
local batch = ARGV[22]
if batch ~= '' then
  local b = call('HMGET', batch_key(batch), 'token', 'status', 'fed')
  if b[1] ~= ARGV[23] or b[2] ~= 'in_progress' or b[3] ~= ARGV[24] then return { 'stale', id } end
end

local idem_key
if ARGV[9] ~= '' then
  idem_key = 'ovis:idem:' .. tenant .. ':' .. ARGV[9]
  local before = call('GET', idem_key)
  if before then
    local old_id, old_hash = string.match(before, '^(%S+) (%S+)$')
    return { old_hash == ARGV[10] and 'exists' or 'conflict', old_id }
  end
end

-- A planned task waits as one plan first; how many parts it will have is not known yet.
local planned = ARGV[20] ~= ''
local parts = planned and 0 or tonumber(ARGV[15])
local function refusal(where, more)
  if call('ZCARD', tenant_key(where, tenant)) + more > tonumber(ARGV[12]) then return 'tenant_full' end
  if number(queue_key(where, 'stats'), 'waiting') + more > tonumber(ARGV[13]) then return 'queue_full' end
end
local full = refusal(queue, math.max(1, parts)) or (planned and refusal(IO_QUEUE, 1))
if full then return { full, id } end
if number('ovis:load', 'n:' .. tenant) + 1 > tonumber(ARGV[21]) then return { 'tenant_full', id } end
local bytes = tonumber(ARGV[16])
if number('ovis:load', 't:' .. tenant) + bytes > tonumber(ARGV[17]) then return { 'tenant_full', id } end
if number('ovis:load', 'q:' .. queue) + bytes > tonumber(ARGV[18]) then return { 'queue_full', id } end

local now = now_ms()
call('HSET', key, 'tenant', tenant, 'queue', queue, 'status', 'queued', 'created_ms', int(now), 'spec', ARGV[8],
  'weight', ARGV[5], 'band', ARGV[6], 'retention_s', ARGV[7], 'run', 1, 'attempts', 0,
  'parts_total', parts, 'parts_done', 0, 'parts_failed', 0, 'parts_canceled', 0)
if bytes > 0 then call('HSET', key, 'bytes', ARGV[16]) end
if batch ~= '' then
  call('HSET', key, 'batch', batch)
  call('HSET', batch_key(batch), 'fed', tonumber(ARGV[24]) + 1, 'offset', ARGV[25], 'losses', 0)
end
add_load(key, 1)
if ARGV[19] ~= '' then
  call('HSET', key, 'deadline_s', ARGV[19])
  set_deadline(id, now, ARGV[19])
end
if ARGV[14] ~= '' then call('HSET', key, 'webhook', ARGV[14]) end
if idem_key then call('SET', idem_key, id .. ' ' .. ARGV[10], 'EX', ARGV[11]) end
call('ZADD', 'ovis:index:' .. tenant, 0, id)
count_use(tenant, 'tasks_submitted', 1)
for part = 0, parts - 1 do
  local p = 'p' .. part
  call('HSET', key, p .. ':state', 'waiting', p .. ':attempts', 0, p .. ':cost', ARGV[4])
  enqueue(queue, tenant, id, part, tonumber(ARGV[6]), now, 0)
end
wake(queue, parts)
if planned then
  call('HSET', key, 'planned', 1, 'stage', 'planning', 'on_page_failure', ARGV[20],
    'tenant_limit', ARGV[12], 'queue_limit', ARGV[13])
  plant_part(id, 'plan', 1)
  wake(IO_QUEUE, 1)
end
return { 'created', id, int(now) }
