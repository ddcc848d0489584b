#!lua flags=allow-oom
-- Purpose: take all of one conversation out of the buffer, whatever its state: rows, texts, journal, image, and every entry
--      of it in the partition's indexes. For `blotter erase` alone: what was acknowledged is forgotten on purpose.
-- KEYS 1 epoch, 2 due, 3 open, 4 idle, 5 dead, 6 trial, 7 blind, 8 rows, 9 bodies, 10 journal, 11 image rows, 12 image bodies
-- ARGV 1 uid, 2 … names (K/I) that an index was seen to hold
-- Returns how many keys and entries are gone
-- Prevents: a base loaded from Postgres before it was erased there, and installed after (epoch; also where nothing is hot);
--      a row gone and its due entry left (one script).
local uid, gone = ARGV[1], 0
local function forget(name)
  local ref = uid .. '/' .. name
  gone = gone + redis.call('ZREM', KEYS[2], ref) + redis.call('ZREM', KEYS[3], ref)
  gone = gone + redis.call('HDEL', KEYS[5], ref) + redis.call('HDEL', KEYS[6], ref)
end
for _, rows in ipairs({ KEYS[8], KEYS[11] }) do
  for _, name in ipairs(redis.call('HKEYS', rows)) do forget(name) end
end
for i = 2, #ARGV do forget(ARGV[i]) end
gone = gone + redis.call('ZREM', KEYS[4], uid) + redis.call('ZREM', KEYS[7], uid)
gone = gone + redis.call('UNLINK', KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12])
redis.call('INCR', KEYS[1])
return gone
