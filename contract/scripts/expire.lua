-- Take back attempts whose lease has run out, at most ARGV[1] of them.
-- Where nobody has looked for longer than a lease (Redis or every io worker was away), all leases are extended once:
-- their holders had no chance to renew them either.
-- Reply: {number extended, number given back, number exhausted}
local now = now_ms()
local last = tonumber(call('GET', 'ovis:reaper:last') or '0')
call('SET', 'ovis:reaper:last', int(now))
if now - last > LEASE_MS then
  local tokens = call('ZRANGE', 'ovis:leases', 0, -1)
  for _, token in ipairs(tokens) do call('ZADD', 'ovis:leases', 'GT', int(now + LEASE_MS), token) end
  return { #tokens, 0, 0 }
end
local back, exhausted = 0, 0
for _, token in ipairs(call('ZRANGEBYSCORE', 'ovis:leases', '-inf', int(now), 'LIMIT', 0, ARGV[1])) do
  local a = find_attempt(token)
  if not a then
    call('ZREM', 'ovis:leases', token)
  elseif give_back(a, 'lease expired', true, 0) == 'exhausted' then
    exhausted = exhausted + 1
  else
    back = back + 1
  end
end
return { 0, back, exhausted }
