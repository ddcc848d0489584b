#!lua flags=no-writes
-- Purpose: what is due. A score further ahead than twice the autosave is due too: the clock went back.
-- KEYS 1 due   ARGV 1 how many at most, 2 autosave_ms, 3 entries to pass over
-- Returns the refs, most overdue first
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local most = tonumber(ARGV[1])
local refs = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', ARGV[3], most)
if #refs < most then
  local ahead = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + 2 * tonumber(ARGV[2])), '+inf',
    'LIMIT', 0, most - #refs)
  for _, ref in ipairs(ahead) do refs[#refs + 1] = ref end
end
return refs
