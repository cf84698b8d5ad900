-- Send a test event to an endpoint.  ARGV: endpoint, tenant, nonce
-- Reply: the delivery's id | 'missing' | 'disabled'
local id, tenant = ARGV[1], ARGV[2]
if not owns(tenant, id) then return 'missing' end
if call('HGET', endpoint_key(id), 'enabled') ~= '1' then return 'disabled' end
return create_delivery({ type = 'webhook.test', at_ms = now_ms(), nonce = ARGV[3] }, tenant, id, id)
