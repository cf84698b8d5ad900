-- Note what a part took: running sums of lately finished parts of a queue, halved as they grow, so that old ones fade.
-- ARGV: queue, output tokens, visual plus output tokens, engine seconds, parts after which to halve, ttl s
local key = queue_key(ARGV[1], 'pace')
if call('HINCRBY', key, 'parts', 1) > tonumber(ARGV[5]) then
  for _, field in ipairs({ 'parts', 'output_tokens', 'cost' }) do
    call('HSET', key, field, math.floor(number(key, field) / 2))
  end
  call('HSET', key, 'seconds', tostring(number(key, 'seconds') / 2))
end
call('HINCRBY', key, 'output_tokens', ARGV[2])
call('HINCRBY', key, 'cost', ARGV[3])
call('HINCRBYFLOAT', key, 'seconds', ARGV[4])
call('EXPIRE', key, ARGV[6])
return 1
