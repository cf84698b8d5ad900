-- Accepts any number of tasks, each by itself: what one of them meets is no other's concern.
-- ARGV: for each task a JSON array of strings: id, tenant, queue, cost, weight, band, retention_s, spec,
--       idempotency key or '', body hash,
--       idempotency ttl s, most waiting parts of the tenant, of the queue, webhook or '', number of parts,
--       bytes of the inputs, most bytes of the tenant, of the queue, deadline s or '',
--       what becomes of a planned task with failed pages ('succeed'|'fail'), or '' for a task that needs no plan,
--       most un-ended tasks of the tenant, and for a line of a batch: the batch, the token of who holds it, the line's
--       number, the byte after it
-- Reply: for each {'created'|'exists'|'conflict'|'tenant_full'|'queue_full'|'stale', id, for 'created' the task's
--        created_ms}
--        and {'error', message} where the task's part of the script failed

local function submit(a)
  local id, tenant, queue = a[1], a[2], a[3]
  local key = task_key(id)
  local made = call('HGET', key, 'created_ms')
  if made then return { 'created', id, made } end -- our own retry after a lost reply

  -- A line runs once: only while its batch is at it, by whoever holds the batch.
  local batch = a[22]
  if batch then
    local b = call('HMGET', batch_key(batch), 'token', 'status', 'fed')
    if b[1] ~= a[23] or b[2] ~= 'in_progress' or b[3] ~= a[24] then return { 'stale', id } end
  end

  local idem_key
  if a[9] ~= '' then
    idem_key = 'ovis:idem:' .. tenant .. ':' .. a[9]
    local before = call('GET', idem_key)
    if before then
      local old_id, old_hash = string.match(before, '^(%S+) (%S+)$')
      return { old_hash == a[10] and 'exists' or 'conflict', old_id }
    end
  end

  -- A planned task waits as one plan first; how many parts it will have is not known yet.
  local planned = a[20] ~= ''
  local parts = planned and 0 or tonumber(a[15])
  local function refusal(where, more)
    if call('ZCARD', tenant_key(where, tenant)) + more > tonumber(a[12]) then return 'tenant_full' end
    if number(queue_key(where, 'stats'), 'waiting') + more > tonumber(a[13]) then return 'queue_full' end
  end
  local full = refusal(queue, math.max(1, parts)) or (planned and refusal(IO_QUEUE, 1))
  if full then return { full, id } end
  if number('ovis:load', 'n:' .. tenant) + 1 > tonumber(a[21]) then return { 'tenant_full', id } end
  local bytes = tonumber(a[16])
  if number('ovis:load', 't:' .. tenant) + bytes > tonumber(a[17]) then return { 'tenant_full', id } end
  if number('ovis:load', 'q:' .. queue) + bytes > tonumber(a[18]) then return { 'queue_full', id } end

  local now = now_ms()
  call('HSET', key, 'tenant', tenant, 'queue', queue, 'status', 'queued', 'created_ms', int(now), 'spec', a[8],
    'weight', a[5], 'band', a[6], 'retention_s', a[7], 'run', 1, 'attempts', 0,
    'parts_total', parts, 'parts_done', 0, 'parts_failed', 0, 'parts_canceled', 0)
  if bytes > 0 then call('HSET', key, 'bytes', a[16]) end
  if batch then
    call('HSET', key, 'batch', batch)
    call('HSET', batch_key(batch), 'fed', tonumber(a[24]) + 1, 'offset', a[25], 'losses', 0)
  end
  add_load(key, 1)
  if a[19] ~= '' then
    call('HSET', key, 'deadline_s', a[19])
    set_deadline(id, now, a[19])
  end
  if a[14] ~= '' then call('HSET', key, 'webhook', a[14]) end
  if idem_key then call('SET', idem_key, id .. ' ' .. a[10], 'EX', a[11]) end
  call('ZADD', 'ovis:index:' .. tenant, 0, id)
  count_use(tenant, 'tasks_submitted', 1)
  for part = 0, parts - 1 do
    local p = 'p' .. part
    call('HSET', key, p .. ':state', 'waiting', p .. ':attempts', 0, p .. ':cost', a[4])
    enqueue(queue, tenant, id, part, tonumber(a[6]), now, 0)
  end
  wake(queue, parts)
  if planned then
    call('HSET', key, 'planned', 1, 'stage', 'planning', 'on_page_failure', a[20],
      'tenant_limit', a[12], 'queue_limit', a[13])
    plant_part(id, 'plan', 1)
    wake(IO_QUEUE, 1)
  end
  return { 'created', id, int(now) }
end

local replies = {}
for place, text in ipairs(ARGV) do
  local done, reply = pcall(function() return submit(cjson.decode(text)) end)
  replies[place] = done and reply or { 'error', type(reply) == 'table' and reply.err or tostring(reply) }
end
return replies
