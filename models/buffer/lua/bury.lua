#!lua flags=allow-oom
-- Purpose: set aside a row Postgres will never take: dirty, readable, never evicted, no longer due.
-- KEYS 1 rows, 2 bodies, 3 due, 4 dead, 5 trial   ARGV 1 uid, 2 name, 3 version, 4 why (JSON, no chat text)
-- Returns 1 buried, 0 it changed meanwhile (it is due again and gets its chance)
-- Prevents: a newer save buried for an older one's fault.
clock(0)
redis.call('HDEL', KEYS[5], ARGV[1] .. '/' .. ARGV[2])
use(KEYS[1], KEYS[2])
local r = H and row(ARGV[2])
if not r or not r.y or r.v ~= tonumber(ARGV[3]) then return 0 end
if not r.x then H.dead = (H.dead or 0) + 1; HCHANGED = true end
r.x = 1
put_row(ARGV[2], r)
write()
redis.call('ZREM', KEYS[3], ARGV[1] .. '/' .. ARGV[2])
redis.call('HSET', KEYS[4], ARGV[1] .. '/' .. ARGV[2], ARGV[4])
return 1
