-- Forget a file; its bytes are deleted after it.
-- ARGV: id, tenant, '1' where only one whose time is over goes, seconds for which the id answers "purged"
-- Reply: 'removed' | 'missing' | 'in_use' (by a batch that hasn't ended; one whose time is over stays until then)
local id, tenant = ARGV[1], ARGV[2]
local key = file_key(id)
local f = call('HMGET', key, 'tenant', 'uses', 'bytes', 'expires_ms')
if f[1] ~= tenant then
  if not f[1] then call('ZREM', FILE_RETENTION, id) end
  return 'missing'
end
if ARGV[3] == '1' and tonumber(f[4]) > now_ms() then return 'missing' end
if tonumber(f[2]) > 0 then
  if ARGV[3] == '1' then call('ZADD', FILE_RETENTION, int(now_ms() + RETENTION_LATER_MS), id) end
  return 'in_use'
end
call('UNLINK', key)
call('ZREM', 'ovis:files:' .. tenant, id)
call('ZREM', FILE_RETENTION, id)
call('HINCRBY', 'ovis:load', 'f:' .. tenant, -tonumber(f[3]))
call('SET', 'ovis:purged:' .. id, tenant, 'EX', ARGV[4])
return 'removed'
