#!lua flags=allow-oom
-- Purpose: take conversations off their owner's index after their row was committed.
-- KEYS 1 owner's index   ARGV pairs: uid, committed version
-- Returns how many went
-- Prevents: a newer dirty row (listed with its higher version) falling out of the list.
local gone = 0
for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) <= tonumber(ARGV[i + 1]) then gone = gone + redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return gone
