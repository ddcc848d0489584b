#!lua flags=allow-oom
-- Purpose: look at a partition from outside; ring for it (set the bell) where work has lain and nobody is at it.
-- KEYS 1 meta, 2 due, 3 blind, 4 bell, 5 lease, 6 hold
-- ARGV 1 autosave_ms, 2 bell ms (0: only look)
-- Returns {1 rung (send the doorbell), ms the most overdue is late (-1: nothing is), ms of the server's clock,
--      1 laid out, 1 free (no flusher, no pause)}
-- Prevents: a second doorbell while one is out; a score far ahead (the clock went back) that nobody would ever look at;
--      a bell, lease or pause that outlives the clock that set it: their ends lie in the file as times of day.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
for i = 4, 6 do
  -- None is ever set for longer.
  if redis.call('PTTL', KEYS[i]) > 300000 then redis.call('DEL', KEYS[i]) end
end
local late = -1
for i = 2, 3 do
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if first[2] then late = math.max(late, now - tonumber(first[2])) end
  -- A journal waits from its first save on, whatever the clock said then.
  if first[2] and i == 3 then late = math.max(late, 0) end
end
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
if last[2] then late = math.max(late, tonumber(last[2]) - now - 2 * tonumber(ARGV[1])) end
late = math.max(late, -1)
local laid = redis.call('EXISTS', KEYS[1])
local free = redis.call('EXISTS', KEYS[5], KEYS[6]) == 0 and 1 or 0
local rung = 0
if late >= 0 and free == 1 and tonumber(ARGV[2]) > 0
  and redis.call('SET', KEYS[4], string.format('%.0f', now), 'NX', 'PX', ARGV[2]) then
  rung = 1
end
return { rung, math.floor(late), now, laid, free }
