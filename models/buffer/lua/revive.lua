#!lua flags=allow-oom
-- Purpose: replay a dead letter (due again), or purge it (the row goes from the buffer; Postgres keeps what it has).
-- KEYS 1 rows, 2 bodies, 3 due, 4 dead, 5 open   ARGV 1 uid, 2 name, 3 replay | purge
-- Returns 1 done, 0 no such dead letter
clock(0)
use(KEYS[1], KEYS[2])
local member = ARGV[1] .. '/' .. ARGV[2]
local r = H and row(ARGV[2])
if not r or not r.x then
  redis.call('HDEL', KEYS[4], member)
  return 0
end
r.x = nil
H.dead = H.dead - 1
HCHANGED = true
if ARGV[3] == 'replay' then
  put_row(ARGV[2], r)
  write()
  redis.call('ZADD', KEYS[3], num(NOW), member)
else
  drop_bodies(ARGV[2], r)
  H.dirty = H.dirty - 1
  if string.sub(ARGV[2], 1, 2) == 'v/' then
    B[ARGV[2]] = false
  else
    H.bytes = (H.bytes or 0) - (r.b or 0)
    if ARGV[2] ~= 'c/' then H.n = H.n - 1 end
  end
  if r.o then H.open = H.open - 1 end
  -- The next touch adopts what Postgres has of it.
  H.be = ''
  R[ARGV[2]], RCHANGED[ARGV[2]] = false, true
  write()
  redis.call('ZREM', KEYS[5], member)
end
redis.call('HDEL', KEYS[4], member)
return 1
