-- Let go of a batch after a step.
-- ARGV: batch, token, ms until the next look, how the step ended: 'whole' (earlier losses count no more) | 'cut' |
--       'broken' (it counts as a loss)
-- Reply: 1 | 0
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 0 end
if ARGV[4] == 'whole' then call('HSET', batch_key(id), 'losses', 0) end
if ARGV[4] == 'broken' then call('HINCRBY', batch_key(id), 'losses', 1) end
rest(id, tonumber(ARGV[3]))
return 1
