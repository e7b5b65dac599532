-- SPDX-License-Identifier: GPL-3.0-or-later
-- Replace an attempt's reservation by its cost, once. Also what is not known here is remembered for a while, so that
-- a seed that still counts it as open, or a reservation that arrives late, cannot bring it back.
-- KEYS: attempt, done, open
-- ARGV: attempt, cost, how long to remember (ms)
-- Returns {'settled', amount} | {'already'} | {'unknown'}
if redis.call('EXISTS', KEYS[2]) == 1 then
  return { 'already' }
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
local current = run()
local open = redis.call('HGETALL', KEYS[1])
local amount, known = '0', false
for index = 1, #open, 2 do
  if open[index] == 'amount' then
    amount = open[index + 1]
  elseif open[index] == 'run' then
    known = open[index + 1] == current
  end
end
redis.call('DEL', KEYS[1])
if not known then
  return { 'unknown' }
end
for index = 1, #open, 2 do
  local window, key = string.match(open[index], '^k:(%d+):(.+)$')
  if window then
    local found = redis.call('HMGET', key, 'run', 's:' .. window)
    if found[1] == current and found[2] then
      redis.call('HINCRBY', key, 'r:' .. window, whole(0 - tonumber(amount)))
      redis.call('HINCRBY', key, 's:' .. window, ARGV[2])
    end
  end
end
return { 'settled', tonumber(amount) }
