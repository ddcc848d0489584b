#!lua flags=allow-oom
-- Purpose: start a flush: take the lease and delete the bell, in one.
-- KEYS 1 lease, 2 bell, 3 hold, 4 fails   ARGV 1 token, 2 lease ms
-- Returns {1 taken, 0 another holds it, -1 the partition pauses after an error; transient errors in a row so far}
-- Prevents: a save after the flush looked and before the bell was deleted, for which nobody would ring; a bell answered
--      by a second flusher that finds the first at work: it would keep the first from ringing for what it did not see.
local fails = tonumber(redis.call('GET', KEYS[4]) or '0')
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('DEL', KEYS[2])
  return { -1, fails }
end
local taken = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
redis.call('DEL', KEYS[2])
return { taken, fails }
