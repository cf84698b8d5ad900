-- Stop tasks whose deadline has passed, at most ARGV[1] of them. Those that run end when their workers have let go.
-- Reply: number stopped
local due = call('ZRANGEBYSCORE', 'ovis:deadlines', '-inf', int(now_ms()), 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  call('ZREM', 'ovis:deadlines', id)
  stop_task(id, 'deadline')
end
return #due
