#!lua flags=allow-oom
-- Purpose: keep a sample of the figures, the oldest beyond a number go; under memory pressure too, for that is when they
--          are looked at, and what they take is bounded.
-- KEYS 1 samples   ARGV 1 the sample, 2 how many are kept
-- Returns 1
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[2]) - 1)
return 1
