-- SPDX-License-Identifier: GPL-3.0-or-later
-- Forget entries of the cache.
-- KEYS: used, ends, size, bytes. ARGV: prefix of entries, then their names.
for at = 2, #ARGV do
  local bytes = redis.call('HGET', KEYS[3], ARGV[at])
  if bytes then redis.call('INCRBY', KEYS[4], -bytes) end
  redis.call('HDEL', KEYS[3], ARGV[at])
  redis.call('ZREM', KEYS[1], ARGV[at])
  redis.call('ZREM', KEYS[2], ARGV[at])
  redis.call('UNLINK', ARGV[1] .. ARGV[at])
end
