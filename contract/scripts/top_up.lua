-- Forget workers that have gone silent and bring the queue's wake-ups up to their number.
-- ARGV: queue.  Reply: {wake-ups pushed, workers forgotten}
local queue = ARGV[1]
local workers = queue_key(queue, 'workers')
local silent = call('ZRANGEBYSCORE', workers, '-inf', int(now_ms() - LEASE_MS))
for _, worker in ipairs(silent) do
  call('ZREM', workers, worker)
  call('HDEL', queue_key(queue, 'slots'), worker)
end
if #silent > 0 then count_slots(queue) end
return { wake(queue, 1000), #silent }
