#!lua flags=allow-oom
-- Purpose: say that something happens now, under memory pressure too; or find that somebody else said so lately.
-- KEYS 1 the claim   ARGV 1 ms it stands, 2 "1": over a standing one
-- Returns 1 claimed, 0 another stands
-- Prevents: every worker sweeping in a dead beat's place at once.
local t = redis.call('TIME')
local now = string.format('%.0f', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
if ARGV[2] == '1' then
  redis.call('SET', KEYS[1], now, 'PX', ARGV[1])
  return 1
end
return redis.call('SET', KEYS[1], now, 'NX', 'PX', ARGV[1]) and 1 or 0
