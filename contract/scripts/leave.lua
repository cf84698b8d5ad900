-- A worker says good-bye. ARGV: queue, worker
call('ZREM', queue_key(ARGV[1], 'workers'), ARGV[2])
call('HDEL', queue_key(ARGV[1], 'slots'), ARGV[2])
count_slots(ARGV[1])
return 1
