-- SPDX-License-Identifier: GPL-3.0-or-later
-- KEYS: run, account…
-- ARGV: window (s) per account
-- Returns {'used', spent, reserved, …} | {'unseeded', age (ms), index…}
local current = run()
local used, unseeded = { 'used' }, { 'unseeded', age(KEYS[1], current) }
for index = 2, #KEYS do
  local spent, reserved = read(KEYS[index], ARGV[index - 1], current)
  if spent then
    used[#used + 1] = spent
    used[#used + 1] = reserved
  else
    unseeded[#unseeded + 1] = index - 2
  end
end
if #unseeded > 2 then
  return unseeded
end
return used
