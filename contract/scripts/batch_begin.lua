-- The file has been checked: lines may run.  ARGV: batch, token, number of lines.  Reply: the batch's status | 'lost'
local id = ARGV[1]
local key = batch_key(id)
if not holds(id, ARGV[2]) then return 'lost' end
if call('HGET', key, 'status') == 'validating' then
  call('HSET', key, 'status', 'in_progress', 'in_progress_ms', int(now_ms()), 'total', ARGV[3])
end
return call('HGET', key, 'status')
