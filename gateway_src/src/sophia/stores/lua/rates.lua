-- SPDX-License-Identifier: GPL-3.0-or-later
-- Take from every rate, or from none; see sophia/stores/rates.py for the algorithm and its units.
-- KEYS: one hash (level, at) per rate
-- ARGV: at (µs), 1 to check (0 to adjust: never refuses), ttl (ms), then per rate: pace (per minute), amount (units)
-- Returns {1 or 0, then per rate what would be left of its capacity, and by how much its clock is ahead (µs)}
local UNIT = 60000000
local now, check = tonumber(ARGV[1]), ARGV[2] == '1'
local reply, levels, fits = { 1 }, {}, true
for index, key in ipairs(KEYS) do
  local pace, amount = tonumber(ARGV[2 + index * 2]), tonumber(ARGV[3 + index * 2])
  local found = redis.call('HMGET', key, 'level', 'at')
  local level, at = tonumber(found[1] or 0), tonumber(found[2] or 0)
  if now > at then
    level = math.max(0, level - (now - at) * pace)
  end
  levels[index] = math.max(0, level + amount)
  local left = pace * UNIT - level - amount
  fits = fits and left >= 0
  reply[#reply + 1] = left
  reply[#reply + 1] = math.max(0, at - now)
end
if check and not fits then
  reply[1] = 0
  return reply
end
for index, key in ipairs(KEYS) do
  local at = now + reply[1 + index * 2]
  redis.call('HSET', key, 'level', string.format('%.0f', levels[index]), 'at', string.format('%.0f', at))
  redis.call('PEXPIRE', key, ARGV[3])
end
return reply
