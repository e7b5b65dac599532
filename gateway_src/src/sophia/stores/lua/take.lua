-- SPDX-License-Identifier: GPL-3.0-or-later
-- Reserve between `floor` and `want` in every account, or nothing in any.
-- KEYS: run, attempt, done, open, account…
-- ARGV: attempt, want, floor, share, at (ms), instance, ttl of the attempt (ms),
--       then per account: window (s), cap, forget windows before (s), ttl (ms)
-- Returns {'granted', amount} | {'refused', spent, reserved, …} | {'unseeded', age (ms), index…} | {'settled'}
local current = run()
local kept = age(KEYS[1], current)
if redis.call('EXISTS', KEYS[3]) == 1 then
  return { 'settled' }
end
local open = redis.call('HMGET', KEYS[2], 'run', 'amount')
if open[1] == current then
  return { 'granted', tonumber(open[2]) }
end

local want, floor, share = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local used, unseeded, fresh = { 'refused' }, { 'unseeded', kept }, {}
local headroom = math.huge
for index = 5, #KEYS do
  local base = 7 + (index - 5) * 4
  local spent, reserved, new = read(KEYS[index], ARGV[base + 1], current)
  if spent then
    used[#used + 1] = spent
    used[#used + 1] = reserved
    fresh[index] = new
    headroom = math.min(headroom, tonumber(ARGV[base + 2]) - spent - reserved)
  else
    unseeded[#unseeded + 1] = index - 5
  end
end
if #unseeded > 2 then
  return unseeded
end

local amount = want
if floor < want then
  amount = math.min(want, math.max(floor, math.floor(headroom * share)))
end
if amount > headroom then
  return used
end

redis.call('DEL', KEYS[2])
local fields = { 'run', current, 'amount', whole(amount), 'at', ARGV[5], 'by', ARGV[6] }
for index = 5, #KEYS do
  local base = 7 + (index - 5) * 4
  local key, window = KEYS[index], ARGV[base + 1]
  if fresh[index] then
    local old = {}
    for _, field in ipairs(redis.call('HKEYS', key)) do
      local start = string.match(field, '^[sr]:(%d+)$')
      if start and tonumber(start) < tonumber(ARGV[base + 3]) then
        old[#old + 1] = field
      end
    end
    if #old > 0 then
      redis.call('HDEL', key, unpack(old))
    end
    redis.call('HSET', key, 's:' .. window, '0')
    redis.call('PEXPIRE', key, ARGV[base + 4])
  end
  redis.call('HINCRBY', key, 'r:' .. window, whole(amount))
  fields[#fields + 1] = 'k:' .. window .. ':' .. key
  fields[#fields + 1] = '1'
end
redis.call('HSET', KEYS[2], unpack(fields))
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
return { 'granted', amount }
