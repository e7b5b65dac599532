-- SPDX-License-Identifier: GPL-3.0-or-later
-- KEYS: attempt
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'held', '1')
end
return 0
