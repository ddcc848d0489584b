#!lua flags=allow-oom
-- Purpose: a write that WAIT can wait for, behind a save that wrote nothing (a duplicate): WAIT answers for what its own
-- connection wrote, and what the duplicate repeats came by another.
-- KEYS 1 meta
-- ARGV 1 replicas waited for
-- Returns nothing of use.
-- Prevents: an acknowledged duplicate of a save that no replica has yet.
return redis.call('HSET', KEYS[1], 'ack', ARGV[1])
