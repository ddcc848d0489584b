#!lua flags=allow-oom
-- Purpose: note that a transaction with these rows begins; deleted after any outcome that a flusher lived to see.
-- KEYS 1 trial   ARGV 1 TTL ms (of what nobody deletes, its rows being gone), then pairs ref, number
-- Returns 1
-- Prevents: a row that kills every worker it is given to, for ever, and its partition with it.
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
