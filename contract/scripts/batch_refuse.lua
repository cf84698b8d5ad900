-- A line that is no task's: it is passed over, and what is wrong with it kept.
-- ARGV: batch, token, line, byte after it, error (JSON).  Reply: 'ok' | 'stale'
local id, line = ARGV[1], tonumber(ARGV[3])
local key = batch_key(id)
if not holds(id, ARGV[2]) or call('HGET', key, 'status') ~= 'in_progress' then return 'stale' end
local fed = number(key, 'fed')
if fed == line + 1 and call('HEXISTS', refused_key(id), line) == 1 then return 'ok' end -- our own retry
if fed ~= line then return 'stale' end
call('HSET', refused_key(id), line, ARGV[5])
call('HSET', key, 'fed', line + 1, 'offset', ARGV[4], 'losses', 0)
call('HINCRBY', key, 'failed', 1)
return 'ok'
