#!lua flags=allow-oom
-- Purpose: a worker process says that it lives; those that no longer do are dropped.
-- KEYS 1 workers   ARGV 1 member, 2 ms it counts as alive
-- Returns how many are alive
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
return redis.call('ZCARD', KEYS[1])
