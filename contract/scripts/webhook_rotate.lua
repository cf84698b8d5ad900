-- Replace a secret; the one before it signs too, for a while.
-- ARGV: endpoint or '' for the tenant's own, tenant, new secret, seconds for which the old one still signs
-- Reply: when the old one ends in ms, 0 where there was none, or nil where there is no such endpoint
local id, tenant = ARGV[1], ARGV[2]
local key = 'ovis:hooks:secret:' .. tenant
if id ~= '' then
  if not owns(tenant, id) then return nil end
  key = endpoint_key(id)
end
local before = call('HGET', key, 'secret')
call('HSET', key, 'secret', ARGV[3])
if not before then return '0' end
local until_ms = int(now_ms() + 1000 * tonumber(ARGV[4]))
if before ~= ARGV[3] then call('HSET', key, 'old_secret', before, 'old_until_ms', until_ms) end
return until_ms
