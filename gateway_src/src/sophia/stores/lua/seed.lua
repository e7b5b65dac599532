-- SPDX-License-Identifier: GPL-3.0-or-later
-- Put what the ledger knows of one window of one account in place, if nobody has done so yet.
-- KEYS: run, open, account
-- ARGV: prefix of our keys, window (s), spent, at (ms), ttl (ms), instance, then per open attempt: name, amount
-- Returns 1 if it was this call that seeded, else 0.
local current = run()
age(KEYS[1], current)
local account, window = KEYS[3], ARGV[2]
local found = redis.call('HMGET', account, 'run', 's:' .. window)
if found[1] == current and found[2] then
  return 0
end
if found[1] ~= current then
  redis.call('DEL', account)
  redis.call('HSET', account, 'run', current, 'at', ARGV[4])
end
local spent, reserved = tonumber(ARGV[3]), 0
for index = 7, #ARGV, 2 do
  local name, amount = ARGV[index], ARGV[index + 1]
  local cost = redis.call('GET', ARGV[1] .. 'd:' .. name)
  if cost then
    spent = spent + cost
  else
    local key = ARGV[1] .. 't:' .. name
    local open = redis.call('HMGET', key, 'run', 'amount')
    if open[1] == current then
      amount = open[2]
    else
      redis.call('DEL', key)
      redis.call('HSET', key, 'run', current, 'amount', amount, 'at', ARGV[4], 'by', ARGV[6])
      redis.call('ZADD', KEYS[2], ARGV[4], name)
    end
    redis.call('HSET', key, 'k:' .. window .. ':' .. account, '1')
    if redis.call('PTTL', key) < tonumber(ARGV[5]) then
      redis.call('PEXPIRE', key, ARGV[5])
    end
    reserved = reserved + amount
  end
end
redis.call('HSET', account, 's:' .. window, whole(spent), 'r:' .. window, whole(reserved))
redis.call('PEXPIRE', account, ARGV[5])
return 1
