-- Run a failed task again: its failed and canceled parts, with all their attempts before them. A new run.
-- ARGV: task, tenant, idempotency key or ''
-- Reply: 'missing' | 'retried' (under this key, already) | 'queued' | the status that is not 'failed' | 'gone' (its retention is over: it is being purged)
local id, tenant = ARGV[1], ARGV[2]
local key = task_key(id)
local f = call('HMGET', key, 'tenant', 'status', 'queue', 'parts_total', 'deadline_s', 'expires_ms')
if f[1] ~= tenant then return 'missing' end
if ARGV[3] ~= '' and call('HGET', key, 'retry_key') == ARGV[3] then return 'retried' end
if f[2] ~= 'failed' then return f[2] end
local now = now_ms()
if tonumber(f[6]) <= now then return 'gone' end
call('HSET', key, 'status', 'queued', 'parts_failed', 0, 'parts_canceled', 0)
call('HINCRBY', key, 'run', 1)
if ARGV[3] ~= '' then call('HSET', key, 'retry_key', ARGV[3]) end
call('HDEL', key, 'error', 'part_error', 'stop', 'started_ms', 'ended_ms', 'expires_ms')
call('ZREM', 'ovis:retention', id)
call('ZREM', 'ovis:dead:' .. tenant, id)
add_load(key, 1)
if f[5] then set_deadline(id, now, f[5]) end
local parts = 0
for part = 0, tonumber(f[4]) - 1 do
  local p = 'p' .. part
  local state = call('HGET', key, p .. ':state')
  if state == 'failed' or state == 'canceled' then
    call('HSET', key, p .. ':state', 'waiting', p .. ':attempts', 0)
    call('HDEL', key, p .. ':token', p .. ':error', p .. ':result')
    enqueue_from_record(id, part)
    parts = parts + 1
  end
end
wake(f[3], parts)
return 'queued'
