-- A holder's heartbeat.  ARGV: batch, token.  Reply: the batch's status | 'lost'
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 'lost' end
call('ZADD', BATCHES, 'XX', int(now_ms() + LEASE_MS), id)
return call('HGET', batch_key(id), 'status')
