-- SPDX-License-Identifier: GPL-3.0-or-later
-- Change an open reservation; growth is checked in every account.
-- KEYS: run, attempt, account…
-- ARGV: amount, then per account: window (s), cap
-- Returns {'granted'} | {'refused', growth, spent, reserved, …} | {'unseeded', age (ms), index…} | {'unknown'} | {'held'}
local current = run()
local kept = age(KEYS[1], current)
local open = redis.call('HMGET', KEYS[2], 'run', 'amount', 'held')
if open[3] then
  return { 'held' }
end
local known = open[1] == current
local growth = tonumber(ARGV[1]) - (tonumber(open[2]) or 0)
local used, unseeded, headroom = { 'refused', growth }, { 'unseeded', kept }, math.huge
local charged = {}
for index = 3, #KEYS do
  local base = 1 + (index - 3) * 2
  local window = ARGV[base + 1]
  local spent, reserved = read(KEYS[index], window, current)
  if spent then
    used[#used + 1] = spent
    used[#used + 1] = reserved
    headroom = math.min(headroom, tonumber(ARGV[base + 2]) - spent - reserved)
    if known and redis.call('HEXISTS', KEYS[2], 'k:' .. window .. ':' .. KEYS[index]) == 1 then
      charged[#charged + 1] = index
    end
  else
    unseeded[#unseeded + 1] = index - 3
  end
end
if #unseeded > 2 and (growth > 0 or not known) then
  return unseeded
end
if not known then
  return { 'unknown' }
end
if growth > 0 and growth > headroom then
  return used
end
for _, index in ipairs(charged) do
  redis.call('HINCRBY', KEYS[index], 'r:' .. ARGV[2 + (index - 3) * 2], whole(growth))
end
redis.call('HSET', KEYS[2], 'amount', ARGV[1])
return { 'granted' }
