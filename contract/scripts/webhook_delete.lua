-- Forget an endpoint; what waits for it ends as canceled.
-- ARGV: endpoint, tenant.  Reply: 1 | 0
local id, tenant = ARGV[1], ARGV[2]
if not owns(tenant, id) then return 0 end
subscribe(tenant, id, false, '')
call('DEL', endpoint_key(id))
call('ZREM', 'ovis:hooks:endpoints:' .. tenant, id)
cancel_waiting(id, 'the endpoint was deleted')
return 1
