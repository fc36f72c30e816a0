-- Usage of tenants, and the names the functions are called by.

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

local function swap(key, args)
  if redis.call('GET', key) ~= args[2] then return {'CONFLICT'} end
  redis.call('SET', key, args[3])
  return {'OK'}
end

local function register(name, body, flags)
  local function guarded(keys, args)
    if args[1] ~= EPOCH then return {'EPOCH', EPOCH} end
    return body(string.sub(keys[1], 1, -2), args)
  end
  redis.register_function{function_name = 'hs_' .. name, callback = guarded, flags = flags}
end

redis.register_function{
  function_name = 'hs_info', callback = function() return {FORMAT, EPOCH, REVISION} end, flags = {'no-writes'}
}
redis.register_function{function_name = 'hs_swap', callback = function(keys, args)
  if args[1] ~= EPOCH then return {'EPOCH', EPOCH} end
  return swap(keys[1], args)
end}
register('head', read_head, {'no-writes'})
register('read', read_record, {'no-writes'})
register('claim', claim_key, {})
register('rekey', set_key, {})
register('find', find_request, {})
register('commit', commit, {})
register('versions', versions, {'no-writes'})
register('erase', erase, {'allow-oom'})
register('describe', describe, {'no-writes'})
register('session', read_session, {'no-writes'})
register('session_write', write_session, {})
register('session_delete', delete_session, {'allow-oom'})
register('usage_set', set_usage, {})
register('usage', usage, {'no-writes'})
