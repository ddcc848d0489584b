#!lua
-- Purpose: put a piece (at most 1 MiB) of a base loaded from Postgres where nobody else looks.
-- KEYS 1 staged rows, 2 staged bodies
-- ARGV 1 TTL ms, 2 number of row fields, then name, value …, then body fields name, value …
-- Returns 1
-- Refused by a full buffer; the same text, flagged, is the script "restage": for the base of a journal that fills it.
-- Prevents: a reader of half a base; an abandoned load that stays (TTL).
local rows = tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  redis.call('HSET', (i - 3) / 2 < rows and KEYS[1] or KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
