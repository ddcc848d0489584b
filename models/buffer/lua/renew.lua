#!lua flags=allow-oom
-- Purpose: keep the lease for another batch.   KEYS 1 lease   ARGV 1 token, 2 lease ms
-- Returns 1 kept, 0 lost (stop; what is under way is harmless, Postgres fences by version)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
