#!lua flags=allow-oom
-- Purpose: end what fell silent. An open item past its deadline becomes interrupted, its text kept; a complete message
--      that waited for a tool is only no longer in flight. Check and change in one.
-- KEYS 1 meta, 2 rows, 3 bodies, 4 due, 5 open, 6 bell, 7 hold, 8 dead
-- ARGV 1 request, a MessagePack map: uid, now_us, names [..], window_ms, bell_ms, stream_ms, stale_ms, stale_tool_ms,
--        stale_approval_ms; 2 channel of change hints
-- Returns {number settled, 1 if the doorbell is to be rung, 1 if the conversation is suspect: adopt it, then again}
-- Prevents: a rolled-back row stamped anew over a newer one in Postgres; an item settled although a save came in the same moment; a stale open entry that settles a later reply.
local req = cmsgpack.unpack(ARGV[1])
clock(req.now_us)
use(KEYS[2], KEYS[3])
AT = {
  uid = req.uid, due = KEYS[4], open = KEYS[5], dead = KEYS[8], stream_ms = req.stream_ms,
  stale_ms = req.stale_ms, stale_tool_ms = req.stale_tool_ms, stale_approval_ms = req.stale_approval_ms,
}
-- Adopted under another buffer epoch: the row may be older than Postgres'. Nothing decides on it before it was merged.
if H and H.be ~= redis.call('HGET', KEYS[1], 'e') then return { 0, 0, 1 } end
local settled, before = 0, H and H.last
for _, name in ipairs(req.names) do
  local r = H and row(name)
  if not r or not r.o then
    OPENED[name] = false
  elseif r.o > NOW and (r.t or 0) > NOW + AHEAD_MS then
    -- Touched under a clock far ahead: nobody can tell when, so its silence counts from here.
    r.t = NOW
    schedule_open(name, r)
    put_row(name, r)
  elseif r.o > NOW then
    OPENED[name] = r.o
  elseif OPEN[r.st] and not H.bl then
    fold_all(name, r)
    r.sf, r.st = r.st, 'interrupted'
    r.f = r.f or {}
    r.f.status_reason = r.f.status_reason or 'stale' -- a client's own stays: it was acknowledged
    r.v, r.u = stamp(), NOW
    schedule_open(name, r)
    mark(name, r, NOW)
    settled = settled + 1
  elseif not H.bl then
    r.q = nil
    schedule_open(name, r)
    put_row(name, r)
  end
end
if H then write() end
local least = write_indexes()
local ring = 0
if least and redis.call('EXISTS', KEYS[7]) == 0 and redis.call('SET', KEYS[6], num(NOW), 'NX', 'PX', req.bell_ms) then
  ring = 1
end
if settled > 0 then hint(ARGV[2], req.uid, before) end
return { settled, ring, 0 }
