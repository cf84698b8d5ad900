-- What became of the attempts of the parts that failed: plan, parts in order, assembly.
-- ARGV: task, most parts.  Reply: part, history (a JSON line per ended attempt), part, history...
local key = task_key(ARGV[1])
local found, most = {}, 2 * tonumber(ARGV[2])
local function add(part)
  local f = call('HMGET', key, 'p' .. part .. ':state', 'p' .. part .. ':history')
  if #found < most and f[1] == 'failed' and f[2] then
    found[#found + 1] = tostring(part)
    found[#found + 1] = f[2]
  end
end
add('plan')
for part = 0, number(key, 'parts_total') - 1 do add(part) end
add('assemble')
return found
