-- SPDX-License-Identifier: GPL-3.0-or-later
-- Goes before every script of the reservations. All keys of a call share one hash tag, so one slot; keys that are
-- found in an attempt's fields are built from the same tag.
--
--   …:run              hash    run, at        the server's run that our counters belong to, and since when (server's ms)
--   …:a:<account>      hash    run, at        as above; `at` (caller's ms) is when the account was first seeded
--                              s:<w>, r:<w>   spent and reserved in the window that starts at second <w>
--   …:t:<attempt>      hash    run, amount, at, by, held, k:<w>:<account key> for each window it is charged to
--   …:d:<attempt>      string  the cost of an attempt that was settled a short while ago
--   …:open             zset    attempts by the time they were reserved (ms)
--
-- Counters of an earlier run are void: a server that restarts from a stale dump, or a promoted replica, may have
-- forgotten spend. They are seeded again, as those that are missing.

local SKEW = 60000 -- ms by which the replicas' clocks may differ

local function whole(number)
  return string.format('%.0f', number)
end

local function run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or 'unknown'
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- How long (ms) the counters of this slot have been kept without a loss.
local function age(key, current)
  local seen = redis.call('HMGET', key, 'run', 'at')
  local now = clock()
  if seen[1] ~= current then
    redis.call('HSET', key, 'run', current, 'at', whole(now))
    return 0
  end
  return now - seen[2]
end

-- Spent and reserved of an account's window; nil where that is not known. A window that began well after the account
-- was first seeded, and has no counters yet, has seen nothing.
local function read(key, window, current)
  local found = redis.call('HMGET', key, 'run', 'at', 's:' .. window, 'r:' .. window)
  if found[1] ~= current then
    return nil
  end
  if found[3] then
    return tonumber(found[3]), tonumber(found[4])
  end
  if window * 1000 >= found[2] + SKEW then
    return 0, 0, true
  end
  return nil
end
