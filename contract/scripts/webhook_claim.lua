-- Take a delivery that is due, under a lease. First give back those whose sender has gone.
-- ARGV: token
-- Reply: nil, or {id, {fields of the delivery}, url, {secret, old_secret, old_until_ms}, {spec, created_ms of the task},
-- receivers that may be called now}
local now = now_ms()
for _, id in ipairs(call('ZRANGEBYSCORE', SENDING, '-inf', int(now), 'LIMIT', 0, 100)) do
  call('ZREM', SENDING, id)
  local receiver = call('HGET', delivery_key(id), 'receiver')
  call('HDEL', delivery_key(id), 'token')
  -- Whether it arrived isn't known: it is sent again, and the try doesn't count.
  call('HINCRBY', delivery_key(id), 'tries', -1)
  add_line(id, cjson.encode({ at_ms = now, error = 'sender_lost', detail = 'the sending worker was lost' }))
  count_sending(receiver, -1)
  schedule(id, receiver, now)
end

for _ = 1, 200 do
  local receiver = call('ZRANGEBYSCORE', RECEIVERS, '-inf', int(now), 'LIMIT', 0, 1)[1]
  if not receiver then return nil end
  local id = call('ZRANGE', due_key(receiver), 0, 0)[1]
  local why = refusal(id, now)
  if why then
    end_delivery(id, why == 'the receiver was away for too long' and 'failed' or 'canceled', why)
  else
    local key = delivery_key(id)
    call('ZREM', due_key(receiver), id)
    call('HSET', key, 'token', ARGV[1])
    call('HINCRBY', key, 'tries', 1)
    call('ZADD', SENDING, int(now + SENDING_LEASE_MS), id)
    count_sending(receiver, 1)
    settle_receiver(receiver)
    local f = call('HMGET', key, 'endpoint', 'url', 'tenant', 'task')
    local owner = f[1] and endpoint_key(f[1]) or ('ovis:hooks:secret:' .. f[3])
    local url = f[1] and call('HGET', owner, 'url') or f[2]
    return { id, call('HGETALL', key), url, call('HMGET', owner, 'secret', 'old_secret', 'old_until_ms'),
      call('HMGET', task_key(f[4] or ''), 'spec', 'created_ms'), call('ZCOUNT', RECEIVERS, '-inf', int(now)) }
  end
end
return nil
