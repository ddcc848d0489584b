#!lua flags=allow-oom
-- Purpose: write a partition's meta once, or give it a new buffer epoch when its server was started anew.
-- KEYS 1 meta, 2 epoch
-- ARGV 1 buffer epoch to use, 2 partitions, 3 format, 4 the server's run_id, 5 1: only where it is laid out already
-- Returns {buffer epoch in force, partitions, format}, or {} (5); the caller refuses to start where these differ from its own.
-- Prevents: two starters writing different epochs, an emptied buffer that looks like the old one.
local m = redis.call('HMGET', KEYS[1], 'e', 'n', 'f', 'run')
-- The counter must not repeat a value a loader may still hold from before the buffer was lost, or set back.
local function renew()
  local t = redis.call('TIME')
  local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
  local count = tonumber(redis.call('GET', KEYS[2]) or '0')
  redis.call('SET', KEYS[2], string.format('%.0f', math.max(count + 1, now)))
end
if not m[1] then
  if ARGV[5] == '1' then return {} end
  renew()
  redis.call('HSET', KEYS[1], 'e', ARGV[1], 'n', ARGV[2], 'f', ARGV[3], 'run', ARGV[4])
  return { ARGV[1], ARGV[2], ARGV[3] }
end
if m[4] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], 'e', ARGV[1], 'run', ARGV[4])
  renew()
  m[1] = ARGV[1]
end
return { m[1], m[2], m[3] }
