-- What came of an attempt. A late record, by a sender that was given up, changes nothing.
-- ARGV: delivery, token, 'succeeded' | 'retry' | 'failed' | 'gone', line of the log, body, ms until the next try
-- Reply: 'stale' | the delivery's status
local id, token, outcome = ARGV[1], ARGV[2], ARGV[3]
local key = delivery_key(id)
local f = call('HMGET', key, 'token', 'receiver', 'endpoint', 'tenant')
if f[1] ~= token then return 'stale' end
local now, receiver = now_ms(), f[2]
call('HDEL', key, 'token')
call('HSETNX', key, 'body', ARGV[5])
call('ZREM', SENDING, id)
add_line(id, ARGV[4])
count_sending(receiver, -1)
if outcome == 'succeeded' then
  call('HDEL', health_key(receiver), 'failures', 'open_until_ms')
  end_delivery(id, 'succeeded')
  return 'succeeded'
end
local failures = call('HINCRBY', health_key(receiver), 'failures', 1)
if failures >= FAILURES_TO_REST then
  local rest_ms = math.min(FIRST_REST_MS * 2 ^ (failures - FAILURES_TO_REST), LONGEST_REST_MS)
  call('HSET', health_key(receiver), 'open_until_ms', int(now + rest_ms))
end
if outcome == 'retry' then
  schedule(id, receiver, now + tonumber(ARGV[6]))
  return 'pending'
end
end_delivery(id, 'failed', outcome == 'gone' and 'the receiver answered 410' or 'every try failed')
if outcome == 'gone' and f[3] then disable(f[4], f[3], 'the receiver answered 410') end
return 'failed'
