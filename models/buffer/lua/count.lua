#!lua flags=allow-oom
-- Purpose: add to the workers' counters, under memory pressure too.
-- KEYS 1 stats   ARGV pairs field, increment
-- Returns 1
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
