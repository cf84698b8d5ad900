-- ARGV: task, tenant
-- Reply: 'missing' | the status after the call
if call('HGET', task_key(ARGV[1]), 'tenant') ~= ARGV[2] then return 'missing' end
return stop_task(ARGV[1], 'cancel')
