#!lua flags=allow-oom
-- Purpose: say that Postgres now holds what a base loaded before may lack (a commit of rows that this buffer had lost).
-- KEYS 1 epoch
-- Returns the new eviction counter
-- Prevents: a base loaded before that commit installed after it; a conversation taken for new because it was not there yet.
return redis.call('INCR', KEYS[1])
