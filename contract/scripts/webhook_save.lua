-- Create an endpoint, or change one.
-- ARGV: endpoint, tenant, secret of a new one or '', url or '', events (JSON) or '', '=' and description or '', '1' | '0' | ''
-- for enabled, most endpoints of a tenant
-- Reply: 'saved' | 'missing' | 'full'
local id, tenant, secret = ARGV[1], ARGV[2], ARGV[3]
local key = endpoint_key(id)
local index = 'ovis:hooks:endpoints:' .. tenant
if secret ~= '' then
  if call('EXISTS', key) == 1 then return 'saved' end -- our own retry after a lost reply
  if call('ZCARD', index) >= tonumber(ARGV[8]) then return 'full' end
  call('HSET', key, 'tenant', tenant, 'secret', secret, 'created_ms', int(now_ms()), 'description', '', 'enabled', '1')
  call('ZADD', index, 0, id)
elseif not owns(tenant, id) then
  return 'missing'
end
if ARGV[4] ~= '' then call('HSET', key, 'url', ARGV[4]) end
if ARGV[5] ~= '' then call('HSET', key, 'events', ARGV[5]) end
if ARGV[6] ~= '' then call('HSET', key, 'description', string.sub(ARGV[6], 2)) end
if ARGV[7] == '1' then
  call('HSET', key, 'enabled', '1')
  call('HDEL', key, 'disabled_why')
  call('HDEL', health_key(id), 'failures', 'open_until_ms')
  settle_receiver(id)
elseif ARGV[7] == '0' then
  disable(tenant, id, 'switched off')
end
local f = call('HMGET', key, 'enabled', 'events')
subscribe(tenant, id, f[1] == '1', f[2])
return 'saved'
