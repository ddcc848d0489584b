#!lua flags=allow-oom
-- Purpose: start a flush: take the lease and delete the bell, in one.
-- KEYS 1 lease, 2 bell, 3 hold   ARGV 1 token, 2 lease ms
-- Returns 1 taken, 0 another holds it, -1 the partition pauses after an error
-- Prevents: a save after the flush looked and before the bell was deleted, for which nobody would ring.
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('DEL', KEYS[2])
  return -1
end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('DEL', KEYS[2])
return 1
