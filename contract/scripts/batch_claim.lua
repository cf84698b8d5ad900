-- Take the batch that has waited longest to be looked at, under a lease.
-- ARGV: token
-- Reply: nil, or {id, {fields}, now ms}
local token = ARGV[1]
local now = now_ms()
local mine = call('GET', 'ovis:batch-claim:' .. token)
if mine and holds(mine, token) then return { mine, call('HGETALL', batch_key(mine)), int(now) } end -- a lost reply
for _ = 1, 100 do
  local id = call('ZRANGEBYSCORE', BATCHES, '-inf', int(now), 'LIMIT', 0, 1)[1]
  if not id then return nil end
  local key = batch_key(id)
  if call('EXISTS', key) == 0 then
    call('ZREM', BATCHES, id)
  else
    -- Who held it last never came back.
    if call('HEXISTS', key, 'token') == 1 then call('HINCRBY', key, 'losses', 1) end
    call('HSET', key, 'token', token)
    call('HINCRBY', key, 'claims', 1)
    call('ZADD', BATCHES, int(now + LEASE_MS), id)
    call('SET', 'ovis:batch-claim:' .. token, id, 'PX', LEASE_MS)
    return { id, call('HGETALL', key), int(now) }
  end
end
return nil
