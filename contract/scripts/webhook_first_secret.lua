-- The tenant's own secret, made at its first use.  ARGV: tenant, a new secret.  Reply: the secret that stands
local key = 'ovis:hooks:secret:' .. ARGV[1]
call('HSETNX', key, 'secret', ARGV[2])
return call('HGET', key, 'secret')
