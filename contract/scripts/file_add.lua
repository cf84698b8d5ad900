-- Make a file that lies in the blob store known.
-- ARGV: id, tenant, purpose, name, blob key, bytes, seconds it is kept, idempotency key or '', hash of what was sent,
--       idempotency ttl s, most bytes of the tenant's files
-- Reply: {'created'|'exists'|'conflict'|'tenant_full', id}
local id, tenant = ARGV[1], ARGV[2]
if call('EXISTS', file_key(id)) == 1 then return { 'created', id } end -- our own retry after a lost reply
local idem_key, before = known_by(tenant, ARGV[8], ARGV[9])
if before then return before end
if number('ovis:load', 'f:' .. tenant) + tonumber(ARGV[6]) > tonumber(ARGV[11]) then return { 'tenant_full', id } end
add_file(id, tenant, ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
if idem_key then call('SET', idem_key, id .. ' ' .. ARGV[9], 'EX', ARGV[10]) end
return { 'created', id }
