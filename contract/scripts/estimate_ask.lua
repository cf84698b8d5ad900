-- Ask what a task would take, unless as many questions wait as may. A question leaves its tenant's count when its asker
-- says so, or when that has given up.
-- ARGV: tenant, question id, question as JSON, when the asker gives up (ms), the tenant's limit, the limit of all
-- Reply: {'asked' | 'tenant_full' | 'queue_full', the tenant's questions that wait}
local tenant, id, question, until_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local asked = 'ovis:estimates:of:' .. tenant
call('ZREMRANGEBYSCORE', asked, '-inf', int(now_ms()))
local count = call('ZCARD', asked)
if call('ZSCORE', asked, id) then return { 'asked', count } end -- our own retry after a lost reply
if count >= tonumber(ARGV[5]) then return { 'tenant_full', count } end
if call('LLEN', 'ovis:estimates') >= tonumber(ARGV[6]) then return { 'queue_full', count } end
call('ZADD', asked, until_ms, id)
call('PEXPIREAT', asked, int(math.max(tonumber(until_ms), now_ms() + call('PTTL', asked))))
call('LPUSH', 'ovis:estimates', question)
return { 'asked', count + 1 }
