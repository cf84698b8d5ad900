-- Commit an attempt by its token. A late or repeated commit changes nothing.
-- ARGV: token, task, part, outcome ('succeeded'|'failed'|'stopped'), result, error, cost of what was
--       used (a part's time outside the engine may cost more)
-- Reply: 'committed' | 'canceled' | 'stale'
local token, id, part, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key, p = task_key(id), 'p' .. part
local a = find_attempt(token)
if not a then
  local f = call('HMGET', key, p .. ':token', p .. ':state')
  if f[1] == token and f[2] ~= 'running' then -- our own retry after a lost reply
    return f[2] == 'canceled' and 'canceled' or 'committed'
  end
  return 'stale'
end
local stop = call('HGET', key, 'stop')
local stopping = stop and stop ~= ''
if outcome == 'stopped' and not stopping then
  give_back(a, 'stopped', false, 0)
  return 'stale'
end
-- A fault of a script undoes nothing: what may fail comes before the first change.
local result = ARGV[5] ~= '' and cjson.decode(ARGV[5])
drop_attempt(a)
if call('EXISTS', key) == 0 then return 'stale' end
add_history(a, outcome)
if stopping then
  charge(a.queue, a.tenant, -a.cost, a.weight)
  end_part(id, part, 'canceled')
  wake(a.queue, 1)
  return 'canceled'
end
local actual = tonumber(ARGV[7])
if tonumber(part) then actual = math.max(actual, cost_of_time(a, result and result.usage.gpu_seconds or 0)) end
charge(a.queue, a.tenant, actual - a.cost, a.weight)
if result then
  call('HSET', key, p .. ':result', ARGV[5])
  if tonumber(part) and call('HEXISTS', key, 'planned') == 1 then add_usage(key, ARGV[5], 1) end
  for name, amount in pairs(result.usage or {}) do
    if tonumber(amount) and amount ~= 0 then count_use(a.tenant, name, amount) end
  end
end
end_part(id, part, outcome, ARGV[6])
wake(a.queue, 1)
return 'committed'
