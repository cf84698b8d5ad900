-- A worker's heartbeat: it is there, it has so many slots, and these attempts are still worked on.
-- ARGV: queue, worker, slots, token...
-- Reply: per token 'ok' | 'stop' (free the row, then finish as stopped) | 'lost' (another attempt has the part)
local quarantine = queue_key(ARGV[1], 'quarantine')
if call('GET', quarantine) == ARGV[2] then call('PEXPIRE', quarantine, QUARANTINE_MS) end
register(ARGV[1], ARGV[2], ARGV[3])
local expiry = int(now_ms() + LEASE_MS)
local replies = {}
for i = 4, #ARGV do
  local a = find_attempt(ARGV[i])
  if not a then
    replies[#replies + 1] = 'lost'
  else
    call('ZADD', 'ovis:leases', 'XX', expiry, a.token)
    local stop = call('HGET', task_key(a.task), 'stop')
    replies[#replies + 1] = (stop and stop ~= '') and 'stop' or 'ok'
  end
end
return replies
