-- Accept a batch.
-- ARGV: id, tenant, input file, endpoint, completion window, seconds of it, metadata (JSON), terms (JSON),
--       seconds that its outputs are kept, idempotency key or '', hash of what was sent, idempotency ttl s,
--       most un-ended batches of the tenant
-- Reply: {'created'|'exists'|'conflict'|'no_file'|'other_purpose'|'full', id}
local id, tenant, file = ARGV[1], ARGV[2], ARGV[3]
local key = batch_key(id)
if call('EXISTS', key) == 1 then return { 'created', id } end -- our own retry after a lost reply
local idem_key, before = known_by(tenant, ARGV[10], ARGV[11])
if before then return before end
local f = call('HMGET', file_key(file), 'tenant', 'purpose', 'blob')
if f[1] ~= tenant then return { 'no_file', id } end
if f[2] ~= 'batch' then return { 'other_purpose', id } end
if number('ovis:load', 'b:' .. tenant) >= tonumber(ARGV[13]) then return { 'full', id } end
local now = now_ms()
call('HSET', key, 'tenant', tenant, 'status', 'validating', 'input_file', file, 'input_blob', f[3],
  'endpoint', ARGV[4], 'completion_window', ARGV[5], 'metadata', ARGV[7], 'terms', ARGV[8], 'kept_s', ARGV[9],
  'created_ms', int(now), 'expires_ms', int(now + 1000 * tonumber(ARGV[6])), 'claims', 0, 'losses', 0,
  'total', 0, 'fed', 0, 'offset', 0, 'completed', 0, 'failed', 0, 'late', 0, 'stopped', 0)
call('HINCRBY', file_key(file), 'uses', 1)
call('HINCRBY', 'ovis:load', 'b:' .. tenant, 1)
call('ZADD', 'ovis:batches:' .. tenant, 0, id)
call('ZADD', BATCHES, int(now), id)
if idem_key then call('SET', idem_key, id .. ' ' .. ARGV[11], 'EX', ARGV[12]) end
return { 'created', id }
