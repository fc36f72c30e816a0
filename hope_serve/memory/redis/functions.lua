#!lua name=hope

-- The atomic steps on one owner's record. Every function is given the owner's fixed keys, hs:{u}:m first, and builds
-- names from that one; all share the hash tag, so they live in one slot. The first argument is the installation's epoch.
-- Giving all keys lets a cluster refuse a call during a migration of the slot before it has begun.
--
--   m  hash   ver tomb bytes upd seal | key name tenant | ev es | lo        the head; it moves last
--   v  hash   version -> ms|request|note                                    how each version came to be
--   n  hash   version -> manifest                                           the versions whose content is kept
--   i  hash   request -> version|digest|result                              the journal
--   e  hash   request -> 1                                                  requests of before an erasure; expires
--   g  hash   generation -> 1                                               chunk generations that are kept
--   c:<generation>    hash  number -> chunk                                 staged with an expiry, kept by PERSIST
--   z  hash   session -> generation,   s:<session>  hash  turn base gen man,   t:<generation>  hash  number -> chunk

local EPOCH = '@EPOCH@'
local FORMAT = '1'

-- ver, tomb, bytes, upd, seal; nil when the record is damaged.
local function head_of(p)
  local head = redis.call('HMGET', p .. 'm', 'ver', 'tomb', 'bytes', 'upd', 'seal')
  if not head[1] then
    if redis.call('EXISTS', p .. 'v') == 1 then return nil end
    return {'0', '0', '0', '0.0', ''}
  end
  if tonumber(head[1]) and tonumber(head[2]) then return head end
  return nil
end

local function answer(status, head)
  return {status, head[1], head[2], head[3], head[4], head[5]}
end

local function read_head(p)
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  return answer('OK', head)
end

local function read_record(p)
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  local reply = answer('OK', head)
  local rest = redis.call('HMGET', p .. 'm', 'key', 'ev', 'es')
  reply[7], reply[8], reply[9] = rest[1], rest[2], rest[3]
  local kept = redis.call('HGETALL', p .. 'n')
  for k = 1, #kept, 2 do
    reply[#reply + 1] = kept[k]
    reply[#reply + 1] = redis.call('HGET', p .. 'v', kept[k])
    reply[#reply + 1] = kept[k + 1]
  end
  return reply
end

local function claim_key(p, args)
  local offered, name, tenant, tomb = args[2], args[3], args[4], args[5]
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  if tonumber(head[2]) > tonumber(tomb) then return {'GONE'} end
  local held = redis.call('HGET', p .. 'm', 'key')
  if held and held ~= '' then return {'OK', held} end
  redis.call('HSET', p .. 'm', 'ver', head[1], 'tomb', head[2], 'bytes', head[3], 'upd', head[4], 'seal', head[5],
    'key', offered, 'name', name, 'tenant', tenant)
  return {'OK', offered}
end

local function set_key(p, args)
  local before, after = args[2], args[3]
  if redis.call('HGET', p .. 'm', 'key') ~= before then return {'CONFLICT'} end
  redis.call('HSET', p .. 'm', 'key', after)
  return {'OK'}
end

-- The journal's row and whether it can be true. The write makes a wait for the disk on this connection mean something for
-- a row that another connection wrote.
local function known_request(p, request, ver)
  local row = redis.call('HGET', p .. 'i', request)
  if not row then return nil, true end
  local version = tonumber(string.match(row, '^(%d+)|'))
  redis.call('HSET', p .. 'm', 'touch', '1')
  return row, version and version >= 1 and version <= ver
end

local function find_request(p, args)
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  local row, sound = known_request(p, args[2], tonumber(head[1]))
  if not sound then return {'CORRUPT'} end
  if row then return {'OK', row} end
  return {'NONE'}
end

local function drop_chunks(p, drops)
  for generation, numbers in string.gmatch(drops, '([^:;]+):([^;]+)') do
    for number in string.gmatch(numbers, '%d+') do
      redis.call('HDEL', p .. 'c:' .. generation, number)
    end
  end
end

local function drop_generations(p, live)
  local needed = {}
  for generation in string.gmatch(live, '[^,]+') do needed[generation] = true end
  for _, generation in ipairs(redis.call('HKEYS', p .. 'g')) do
    if not needed[generation] then
      redis.call('UNLINK', p .. 'c:' .. generation)
      redis.call('HDEL', p .. 'g', generation)
    end
  end
end

local function drop_manifests(p, oldest)
  for _, version in ipairs(redis.call('HKEYS', p .. 'n')) do
    local number = tonumber(version)
    if number and number < oldest then redis.call('HDEL', p .. 'n', version) end
  end
end

-- Forgets the oldest versions and their requests: a few at a time, so that no commit pays for many.
local function drop_journal(p, last, before_ms)
  local low = tonumber(redis.call('HGET', p .. 'm', 'lo') or '1') or 1
  local stop = math.min(last, low + 15)
  while low <= stop do
    local row = redis.call('HGET', p .. 'v', low)
    if row then
      local ms, request = string.match(row, '^(%d+)|(%x+)|')
      if ms and tonumber(ms) >= before_ms then break end
      redis.call('HDEL', p .. 'v', low)
      if request then redis.call('HDEL', p .. 'i', request) end
    end
    low = low + 1
  end
  redis.call('HSET', p .. 'm', 'lo', low)
end

local function commit(p, args)
  local base, version, request, digest = args[2], args[3], args[4], args[5]
  local ms, generation, chunks = args[11], args[12], p .. 'c:' .. args[12]
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  local ver = tonumber(head[1])
  if tonumber(base) < tonumber(head[2]) then return answer('GONE', head) end
  local row, sound = known_request(p, request, ver)
  if not sound then return {'CORRUPT'} end
  if row then
    local reply = answer('DUPLICATE', head)
    if string.match(row, '^%d+|(%x*)|') ~= digest then reply[1] = 'REUSED' end
    reply[7] = row
    return reply
  end
  if redis.call('HEXISTS', p .. 'e', request) == 1 then return answer('GONE', head) end
  if head[1] ~= base then return answer('CONFLICT', head) end
  if generation ~= '' then
    if redis.call('HLEN', chunks) ~= tonumber(args[13]) then return {'NOCHUNKS'} end
    redis.call('PERSIST', chunks)
    redis.call('HSET', p .. 'g', generation, '1')
  end
  redis.call('HSET', p .. 'v', version, ms .. '|' .. request .. '|' .. args[7])
  redis.call('HSET', p .. 'n', version, args[8])
  redis.call('HSET', p .. 'i', request, version .. '|' .. digest .. '|' .. args[6])
  redis.call('HSET', p .. 'm', 'ver', version, 'bytes', args[14], 'upd', args[10], 'seal', args[9])
  -- From here on the commit stands: an error below leaves rubbish behind, and the caller's retry finds the request.
  drop_manifests(p, tonumber(args[15]))
  drop_chunks(p, args[18])
  if args[16] == '1' then drop_generations(p, args[17]) end
  drop_journal(p, tonumber(version) - tonumber(args[19]), tonumber(ms) - tonumber(args[20]))
  return {'OK'}
end

local function versions(p)
  local reply = redis.call('HGETALL', p .. 'v')
  table.insert(reply, 1, 'OK')
  return reply
end

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
  redis.call('HSET', p .. 'm', 'ver', version, 'tomb', version, 'bytes', '0', 'upd', upd, 'seal', seal, 'lo', version,
    'ev', removed, 'es', sessions)
  redis.call('PUBLISH', 'hs:erased', owner)
  return {'OK', removed, sessions}
end

local function describe(p)
  local head = head_of(p)
  if not head then return {'CORRUPT'} end
  local reply = answer('OK', head)
  local rest = redis.call('HMGET', p .. 'm', 'tenant', 'name', 'key')
  reply[7], reply[8], reply[9] = rest[1], rest[2], rest[3]
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

local function set_usage(p, args)
  local owner, bytes = args[2], tonumber(args[3])
  local before = tonumber(redis.call('HGET', p .. 'u', owner) or '0')
  if bytes == 0 then redis.call('HDEL', p .. 'u', owner) else redis.call('HSET', p .. 'u', owner, bytes) end
  local total = tonumber(redis.call('HGET', p .. 'm', 'total') or '0') + bytes - before
  redis.call('HSET', p .. 'm', 'total', string.format('%.0f', total))
  return {'OK'}
end

local function usage(p)
  return {'OK', redis.call('HLEN', p .. 'u'), redis.call('HGET', p .. 'm', 'total') or '0'}
end

local function register(name, body, flags)
  local function guarded(keys, args)
    if args[1] ~= EPOCH then return {'EPOCH', EPOCH} end
    return body(string.sub(keys[1], 1, -2), args)
  end
  redis.register_function{function_name = 'hs_' .. name, callback = guarded, flags = flags}
end

redis.register_function{
  function_name = 'hs_info', callback = function() return {FORMAT, EPOCH} end, flags = {'no-writes'}
}
register('head', read_head, {'no-writes'})
register('read', read_record, {'no-writes'})
register('claim', claim_key, {})
register('rekey', set_key, {})
register('find', find_request, {})
register('commit', commit, {})
register('versions', versions, {'no-writes'})
register('erase', erase, {})
register('describe', describe, {'no-writes'})
register('session', read_session, {'no-writes'})
register('session_write', write_session, {})
register('session_delete', delete_session, {})
register('usage_set', set_usage, {})
register('usage', usage, {'no-writes'})
