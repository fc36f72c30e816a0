-- Commits: the journal, the move of the version, and what it leaves to be dropped.

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
    reply[8] = row
    return reply
  end
  if redis.call('HEXISTS', p .. 'e', request) == 1 then return answer('GONE', head) end
  if head[1] ~= base or head[6] ~= args[21] then return answer('CONFLICT', head) end
  if generation ~= '' then
    if redis.call('HLEN', chunks) ~= tonumber(args[13]) then return {'NOCHUNKS'} end
    redis.call('PERSIST', chunks)
    redis.call('HSET', p .. 'g', generation, '1')
  end
  redis.call('HSET', p .. 'v', version, ms .. '|' .. request .. '|' .. args[7])
  redis.call('HSET', p .. 'n', version, args[8])
  redis.call('HSET', p .. 'i', request, version .. '|' .. digest .. '|' .. args[6])
  redis.call('HSET', p .. 'm', 'ver', version, 'bytes', args[14], 'upd', args[10], 'seal', args[9], 'mark', args[22])
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
