#!lua name=hope

-- The atomic steps on one owner's record. Every function is given the owner's fixed keys, hs:{u}:m first, and builds
-- names from that one; all share the hash tag, so they live in one slot. The first argument is the installation's epoch.
-- Giving all keys lets a cluster refuse a call during a migration of the slot before it has begun.
--
--   m  hash   ver tomb bytes upd seal mark | key name tenant | ev es | lo        the head; it moves last
--   v  hash   version -> ms|request|note                                    how each version came to be
--   n  hash   version -> manifest                                           the versions whose content is kept
--   i  hash   request -> version|digest|result                              the journal
--   e  hash   request -> 1                                                  requests of before an erasure; expires
--   g  hash   generation -> 1                                               chunk generations that are kept
--   c:<generation>    hash  number -> chunk                                 staged with an expiry, kept by PERSIST
--   z  hash   session -> generation,   s:<session>  hash  turn base gen man,   t:<generation>  hash  number -> chunk

local EPOCH = '@EPOCH@'
local FORMAT = '2'
local REVISION = '2'

-- ver, tomb, bytes, upd, seal, mark; nil when the record is damaged.
local function head_of(p)
  local head = redis.call('HMGET', p .. 'm', 'ver', 'tomb', 'bytes', 'upd', 'seal', 'mark')
  if not head[1] then
    if redis.call('EXISTS', p .. 'v') == 1 then return nil end
    return {'0', '0', '0', '0.0', '', ''}
  end
  if tonumber(head[1]) and tonumber(head[2]) then
    head[6] = head[6] or ''
    return head
  end
  return nil
end

local function answer(status, head)
  return {status, head[1], head[2], head[3], head[4], head[5], head[6]}
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
  reply[8], reply[9], reply[10] = rest[1], rest[2], rest[3]
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
    'mark', head[6], 'key', offered, 'name', name, 'tenant', tenant)
  return {'OK', offered}
end

local function set_key(p, args)
  local before, after = args[2], args[3]
  if redis.call('HGET', p .. 'm', 'key') ~= before then return {'CONFLICT'} end
  redis.call('HSET', p .. 'm', 'key', after)
  return {'OK'}
end
