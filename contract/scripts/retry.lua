-- Run a task again: its failed and canceled parts, with all their attempts before them. A new run.
-- It takes a failed task, and a planned one that succeeded although some of its parts failed.
-- ARGV: task, tenant, idempotency key or ''
-- Reply: 'missing' | 'retried' (under this key, already) | 'queued' | the status that can't be retried |
--        'gone' (its retention is over: it is being purged) | 'batch cancelling' | 'batch finalizing' (it is a line of a
--        batch that counts on its end)
local id, tenant = ARGV[1], ARGV[2]
local key = task_key(id)
local f = call('HMGET', key, 'tenant', 'status', 'queue', 'parts_total', 'deadline_s', 'expires_ms', 'planned',
  'parts_failed', 'summary_part')
if f[1] ~= tenant then return 'missing' end
if ARGV[3] ~= '' and call('HGET', key, 'retry_key') == ARGV[3] then return 'retried' end
local incomplete = f[2] == 'succeeded' and f[7] and tonumber(f[8]) > 0
if f[2] ~= 'failed' and not incomplete then return f[2] end
local now = now_ms()
if tonumber(f[6]) <= now then return 'gone' end
local batch = call('HGET', key, 'batch')
local batch_status = batch and call('HGET', batch_key(batch), 'status')
if batch_status == 'cancelling' or batch_status == 'finalizing' then return 'batch ' .. batch_status end
call('HSET', key, 'parts_failed', 0, 'parts_canceled', 0)
call('HINCRBY', key, 'run', 1)
count_line(key, f[2], -1)
set_status(id, 'queued')
if ARGV[3] ~= '' then call('HSET', key, 'retry_key', ARGV[3]) end
call('HDEL', key, 'error', 'part_error', 'stop', 'started_ms', 'ended_ms', 'expires_ms')
call('ZREM', 'ovis:retention', id)
call('ZREM', 'ovis:dead:' .. tenant, id)
add_load(key, 1)
if f[5] then set_deadline(id, now, f[5]) end

local total = tonumber(f[4])
if f[9] then -- the summary was written of other parts than there will be now: it is made anew after them
  total = total - 1
  local p = 'p' .. total
  local was = call('HMGET', key, p .. ':state', p .. ':result')
  if was[1] == 'succeeded' then
    call('HINCRBY', key, 'parts_done', -1)
    add_usage(key, was[2], -1)
  end
  call('HDEL', key, 'summary_part', p .. ':state', p .. ':attempts', p .. ':cost', p .. ':unit', p .. ':token',
    p .. ':error', p .. ':result')
  call('HSET', key, 'parts_total', total)
end
local parts = 0
for part = 0, total - 1 do
  local p = 'p' .. part
  local state = call('HGET', key, p .. ':state')
  if state == 'failed' or state == 'canceled' then
    plant_part(id, part, call('HGET', key, p .. ':cost'))
    parts = parts + 1
  end
end
wake(f[3], parts)
if f[7] and total == 0 then
  call('HSET', key, 'stage', 'planning')
  plant_part(id, 'plan', 1)
  wake(IO_QUEUE, 1)
elseif f[7] then
  call('HSET', key, 'stage', 'parts')
  settle(id) -- where no page failed, the summary or the assembly did
end
return 'queued'
