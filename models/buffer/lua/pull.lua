#!lua flags=allow-oom
-- Purpose: make due now what was put off (open items between their intervals); dead letters are not in due.
-- KEYS 1 due   ARGV 1 how many at most
-- Returns how many were pulled; again while it is the most
local t = redis.call('TIME')
local now = string.format('%.0f', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
local refs = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, math.min(tonumber(ARGV[1]), 1000))
local add = {}
for _, ref in ipairs(refs) do
  add[#add + 1] = now
  add[#add + 1] = ref
end
if #add > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(add)) end
return #refs
