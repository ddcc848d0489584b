#!lua flags=allow-oom
-- Purpose: take one conversation out of the buffer, whole, if Postgres has all of it and nobody is at it.
-- KEYS 1 epoch, 2 idle, 3 rows, 4 bodies, 5 journal
-- ARGV 1 uid, 2 evict only if its last save lies this many ms back
-- Returns 1 evicted, 0 kept (its idle entry is moved to now, so that others get their turn), -1 nothing there
-- Prevents: a dirty, dead or in-flight row forgotten; a base loaded before the eviction installed after it (epoch).
-- A conversation that was touched under a clock far ahead counts as idle: it would stay until that time comes.
clock(0)
if not use(KEYS[3], KEYS[4]) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return -1
end
if (H.dirty or 0) > 0 or (H.dead or 0) > 0 or (H.open or 0) > 0 or redis.call('EXISTS', KEYS[5]) == 1
  or ((H.t or 0) > NOW - tonumber(ARGV[2]) and H.t <= NOW + AHEAD_MS) then
  redis.call('ZADD', KEYS[2], 'XX', num(NOW), ARGV[1])
  return 0
end
redis.call('UNLINK', KEYS[3], KEYS[4])
redis.call('INCR', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
