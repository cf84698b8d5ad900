-- What the scripts of files and batches share, behind the prelude. A batch's own keys and its place in the set of those
-- to look at are in the prelude: submitting and ending a task moves them too.

local FILE_RETENTION, BATCH_RETENTION = 'ovis:file-retention', 'ovis:batch-retention'

local function file_key(id) return 'ovis:file:' .. id end

-- What an idempotency key stands for: its key (nil where none is given), and the reply where it stands for something.
local function known_by(tenant, name, hash)
  if name == '' then return nil end
  local key = 'ovis:idem:' .. tenant .. ':' .. name
  local before = call('GET', key)
  if not before then return key end
  local old_id, old_hash = string.match(before, '^(%S+) (%S+)$')
  return key, { old_hash == hash and 'exists' or 'conflict', old_id }
end

local function add_file(id, tenant, purpose, name, blob, bytes, kept_s)
  local now = now_ms()
  local expires = int(now + 1000 * tonumber(kept_s))
  call('HSET', file_key(id), 'tenant', tenant, 'purpose', purpose, 'filename', name, 'blob', blob, 'bytes', bytes,
    'created_ms', int(now), 'expires_ms', expires, 'uses', 0)
  call('ZADD', 'ovis:files:' .. tenant, 0, id)
  call('ZADD', FILE_RETENTION, expires, id)
  call('HINCRBY', 'ovis:load', 'f:' .. tenant, bytes)
end

-- Whether the batch is held by this token; one whose lease was given to another isn't.
local function holds(id, token)
  return token ~= '' and call('HGET', batch_key(id), 'token') == token
end

-- Let go of a batch that is looked at again after `rest_ms`, or at once where all of its lines have ended.
local function rest(id, rest_ms)
  call('HDEL', batch_key(id), 'token')
  if lines_under_way(id) == 0 then rest_ms = math.min(rest_ms, 1000) end
  call('ZADD', BATCHES, int(now_ms() + rest_ms), id)
end
