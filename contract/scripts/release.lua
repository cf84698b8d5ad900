-- Hand an attempt back to the queue.
-- ARGV: token, why, '1' where the try counts (it may be the part's fault) or '0' (a drain, an outage), delay ms
-- Reply: 'queued' | 'canceled' | 'exhausted' | 'gone' | 'stale'
local a = find_attempt(ARGV[1])
if not a then return 'stale' end
return give_back(a, ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]))
