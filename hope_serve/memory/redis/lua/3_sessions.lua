-- Conversations, and erasure, which takes them along.

local function remove_session(p, session)
  local generation = redis.call('HGET', p .. 's:' .. session, 'gen') or redis.call('HGET', p .. 'z', session)
  if generation then redis.call('UNLINK', p .. 't:' .. generation) end
  redis.call('HDEL', p .. 'z', session)
  return redis.call('UNLINK', p .. 's:' .. session)
end

local function bury_requests(p, keep_ms)
  local requests = redis.call('HKEYS', p .. 'i')
  for _, request in ipairs(requests) do redis.call('HSET', p .. 'e', request, '1') end
  if #requests > 0 then redis.call('PEXPIRE', p .. 'e', keep_ms) end
end

local function erase(p, args)
  local base, version, upd, seal, keep_ms, owner = args[2], args[3], args[4], args[5], args[6], args[7]
  local held = redis.call('HGET', p .. 'm', 'ver') or '0'
  if base ~= '' and held ~= base then return {'CONFLICT'} end
  local removed, sessions = redis.call('HLEN', p .. 'v'), 0
  for _, session in ipairs(redis.call('HKEYS', p .. 'z')) do sessions = sessions + remove_session(p, session) end
  for _, generation in ipairs(redis.call('HKEYS', p .. 'g')) do redis.call('UNLINK', p .. 'c:' .. generation) end
  bury_requests(p, keep_ms)
  redis.call('UNLINK', p .. 'v', p .. 'n', p .. 'i', p .. 'g', p .. 'z')
  redis.call('HDEL', p .. 'm', 'key', 'name', 'touch')
  redis.call('HSET', p .. 'm', 'ver', version, 'tomb', version, 'bytes', '0', 'upd', upd, 'seal', seal, 'mark', args[8],
    'lo', version, 'ev', removed, 'es', sessions)
  redis.call('PUBLISH', 'hs:erased', owner)
  return {'OK', removed, sessions}
end

local function describe(p)
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  local reply = answer('OK', head)
  local rest = redis.call('HMGET', p .. 'm', 'tenant', 'name', 'key')
  reply[8], reply[9], reply[10] = rest[1], rest[2], rest[3]
  return reply
end

local function read_session(p, args)
  local row = redis.call('HMGET', p .. 's:' .. args[2], 'turn', 'base', 'gen', 'man')
  if not row[1] then return {'NONE'} end
  return {'OK', row[1], row[2], row[3], row[4]}
end

local function forget_expired(p)
  for _, session in ipairs(redis.call('HKEYS', p .. 'z')) do
    if redis.call('EXISTS', p .. 's:' .. session) == 0 then redis.call('HDEL', p .. 'z', session) end
  end
end

local function write_session(p, args)
  local session, turn, base, generation, ttl_ms = args[2], args[3], args[4], args[5], args[8]
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  if tonumber(base) < tonumber(head[2]) then return {'GONE'} end
  local pointer, chunks = p .. 's:' .. session, p .. 't:' .. generation
  local stored = redis.call('HGET', pointer, 'turn') or '0'
  if tonumber(stored) ~= tonumber(turn) - 1 then return {'CONFLICT', stored} end
  if redis.call('HLEN', chunks) ~= tonumber(args[7]) then return {'NOCHUNKS'} end
  remove_session(p, session)
  redis.call('HSET', pointer, 'turn', turn, 'base', base, 'gen', generation, 'man', args[6])
  redis.call('PEXPIRE', pointer, ttl_ms)
  redis.call('PEXPIRE', chunks, ttl_ms)
  redis.call('HSET', p .. 'z', session, generation)
  if redis.call('HLEN', p .. 'z') % 32 == 0 then forget_expired(p) end
  return {'OK'}
end

local function delete_session(p, args)
  return {'OK', remove_session(p, args[2])}
end
