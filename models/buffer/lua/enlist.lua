#!lua flags=allow-oom
-- Purpose: put a conversation on its owner's index while its row is dirty, also when memory is short: its save, perhaps
--      a delete, was accepted already.
-- KEYS 1 owner's index   ARGV 1 uid, 2 version of the conversation's row
-- Returns 1
-- Prevents: an earlier save whose call comes late lowering the version, so that its commit takes the newer row off.
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
return 1
