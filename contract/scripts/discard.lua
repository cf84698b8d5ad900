-- Take a task off the tenant's dead letters; it stays failed until its retention ends.
-- ARGV: task, tenant.  Reply: 1 | 0
return call('ZREM', 'ovis:dead:' .. ARGV[2], ARGV[1])
