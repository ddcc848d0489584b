#!lua flags=allow-oom
-- Purpose: one partition's step from one number of partitions to another (models/pipeline/repartition.py).
--   close: nobody may save or read here any more, if nothing is here.
--   open:  it belongs to a buffer of so many partitions.
--   drop:  it is none any more.
-- KEYS 1 meta, 2 epoch, 3 due, 4 open, 5 idle, 6 dead, 7 blind
-- ARGV 1 step, 2 partitions (close: those it will be one of), 3 buffer epoch (open; empty: the one it has)
-- Returns 1 done, or was; 0 something is here (close).
-- Prevents: a conversation that processes of both numbers keep, each in a partition of its own.
local n = redis.call('HGET', KEYS[1], 'n')
if ARGV[1] == 'drop' then return redis.call('UNLINK', KEYS[1]) end
if ARGV[1] == 'open' then
  if n then
    redis.call('HSET', KEYS[1], 'n', ARGV[2])
    redis.call('HDEL', KEYS[1], 'was')
    if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'e', ARGV[3]) end
  end
  return 1
end
if not n or n == '0' or n == ARGV[2] then return 1 end
if redis.call('EXISTS', KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]) > 0 then return 0 end
redis.call('HSET', KEYS[1], 'n', '0', 'was', n)
-- A base that was loaded before is not installed after.
redis.call('INCR', KEYS[2])
return 1
