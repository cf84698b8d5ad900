-- Forget workers that have gone silent, let rested parts wait again, bring the queue's wake-ups up to their number.
-- ARGV: queue.  Reply: {wake-ups pushed, workers forgotten}
local queue = ARGV[1]
local workers = queue_key(queue, 'workers')
local silent = call('ZRANGEBYSCORE', workers, '-inf', int(now_ms() - LEASE_MS))
for _, worker in ipairs(silent) do
  call('ZREM', workers, worker)
  call('HDEL', queue_key(queue, 'slots'), worker)
end
if #silent > 0 then count_slots(queue) end
local delayed = queue_key(queue, 'delayed')
for _, member in ipairs(call('ZRANGEBYSCORE', delayed, '-inf', int(now_ms()), 'LIMIT', 0, 1000)) do
  call('ZREM', delayed, member)
  local id, part = string.match(member, '^(.+)/(%w+)$')
  if call('HGET', task_key(id), 'p' .. part .. ':state') == 'waiting' then enqueue_from_record(id, part) end
end
call('HSET', queue_key(queue, 'stats'), 'delayed', call('ZCARD', delayed))
return { wake(queue, 1000), #silent }
