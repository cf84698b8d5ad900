-- End a batch: status, files and retention in one step.
-- ARGV: batch, token, 'written' | 'failed', errors (JSON) or '', lines in the output, lines in the error file,
--       usage (JSON) or '', then per file: 'output' | 'error', id, name, blob key, bytes
-- Reply: the batch's status | 'lost'
local id = ARGV[1]
local key = batch_key(id)
if not holds(id, ARGV[2]) then
  -- Our own retry after a lost reply finds an ended batch.
  local status = call('HGET', key, 'status')
  return call('HEXISTS', key, 'ended_ms') == 1 and call('HGET', key, 'ended_by') == ARGV[2] and status or 'lost'
end
local f = call('HMGET', key, 'tenant', 'status', 'input_file', 'fed', 'total', 'late', 'kept_s')
local status, now = 'completed', now_ms()
if f[2] == 'cancelling' then status = 'cancelled'
elseif ARGV[3] == 'failed' then status = 'failed'
elseif tonumber(f[6]) > 0 or tonumber(f[4]) < tonumber(f[5]) then status = 'expired' end
for i = 8, #ARGV, 5 do
  local field, file = ARGV[i], ARGV[i + 1]
  if call('EXISTS', file_key(file)) == 0 then
    add_file(file, f[1], 'batch_output', ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], f[7])
  end
  call('HSET', key, field .. '_file', file)
end
call('HSET', key, 'status', status, status .. '_ms', int(now), 'ended_ms', int(now), 'ended_by', ARGV[2])
if ARGV[4] ~= '' then call('HSET', key, 'errors', ARGV[4]) end
if ARGV[7] ~= '' then call('HSET', key, 'usage', ARGV[7]) end
if ARGV[3] == 'written' then call('HSET', key, 'completed', ARGV[5], 'failed', ARGV[6]) end
call('HDEL', key, 'token', 'terms')
call('UNLINK', refused_key(id))
call('ZREM', BATCHES, id)
call('ZADD', BATCH_RETENTION, int(now + 1000 * tonumber(f[7])), id)
call('HINCRBY', 'ovis:load', 'b:' .. f[1], -1)
if call('EXISTS', file_key(f[3])) == 1 then call('HINCRBY', file_key(f[3]), 'uses', -1) end
return status
