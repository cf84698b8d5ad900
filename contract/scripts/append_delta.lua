-- Tell those who follow a task what its running attempt has written since the last delta.
-- ARGV: token, offset in characters, text.  Reply: 1, or 0 where the attempt has lost its lease
local a = find_attempt(ARGV[1])
if not a or call('HGET', task_key(a.task), 'p' .. a.part .. ':token') ~= ARGV[1] then return 0 end
tell(a.task, { kind = 'delta', part = tonumber(a.part), attempt = a.claims, offset = tonumber(ARGV[2]), text = ARGV[3] })
return 1
