-- SPDX-License-Identifier: GPL-3.0-or-later
-- Keep an entry of the cache and hold the organisation to its share.
-- KEYS: entry, used, ends, size, bytes. The entries that give way lie in the same slot.
-- ARGV: prefix of entries, name, packed entry, bytes, now (ms), expiry (ms), most entries, most bytes.
local function drop(name)
  local bytes = redis.call('HGET', KEYS[4], name)
  if bytes then redis.call('INCRBY', KEYS[5], -bytes) end
  redis.call('HDEL', KEYS[4], name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('UNLINK', ARGV[1] .. name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[5], 'LIMIT', 0, 64)) do drop(name) end
drop(ARGV[2])
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[6] - ARGV[5])
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[2])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[4])
local bytes = redis.call('INCRBY', KEYS[5], ARGV[4])
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[7]) or bytes > tonumber(ARGV[8]) do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not oldest then -- the counts were lost apart from what they count
    redis.call('SET', KEYS[5], 0)
    break
  end
  drop(oldest)
  bytes = tonumber(redis.call('GET', KEYS[5]))
end
