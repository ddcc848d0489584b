#!lua flags=allow-oom
-- Purpose: end a flush; says whether something became ripe meanwhile.
-- KEYS 1 lease, 2 due, 3 bell, 4 hold, 5 fails
-- ARGV 1 token, 2 window ms, 3 bell ms, 4 pause ms (0: none; after an error), 5 errors in a row, with this one,
--      6 ms these are remembered
-- Returns 1 ring again (the bell is set), 0 not
-- Prevents: releasing somebody else's lease (token); a save during the last batch for which nobody would ring.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
if tonumber(ARGV[4]) > 0 then
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[4])
  redis.call('SET', KEYS[5], ARGV[5], 'PX', ARGV[6])
  return 0
end
redis.call('DEL', KEYS[5])
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local ripe = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now + tonumber(ARGV[2])), 'LIMIT', 0, 1)
if #ripe == 0 or redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
if redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[3]) then return 1 end
return 0
