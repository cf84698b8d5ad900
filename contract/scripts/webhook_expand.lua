-- Turn events of the outbox into deliveries, one for each receiver that wants them. Whole or not at all.
-- ARGV: most events.  Reply: {events taken, deliveries that wait, age of the oldest event in ms}
local taken = 0
while taken < tonumber(ARGV[1]) do
  local raw = call('LPOP', OUTBOX)
  if not raw then break end
  taken = taken + 1
  local event = cjson.decode(raw)
  local f = call('HMGET', task_key(event.task), 'tenant', 'webhook')
  if f[1] then
    if f[2] and string.find(f[2], '"' .. event.type .. '"', 1, true) then
      local url = cjson.decode(f[2]).url
      local host = string.match(url, '^[^/]*//[^/?#]*')
      create_delivery(event, f[1], 'host:' .. redis.sha1hex(f[1] .. '\n' .. string.lower(host or url)), nil, url)
    end
    for _, id in ipairs(call('SMEMBERS', 'ovis:hooks:on:' .. f[1] .. ':' .. event.type)) do
      create_delivery(event, f[1], id, id)
    end
    let_go(event.task)
  end
end
local left = call('LINDEX', OUTBOX, 0)
return { taken, call('LLEN', OUTBOX), left and int(now_ms() - cjson.decode(left).at_ms) or 0 }
