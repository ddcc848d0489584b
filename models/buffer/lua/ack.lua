#!lua flags=allow-oom
-- Purpose: after a commit, forget what was committed, and only that: by version, with or without the lease.
-- KEYS 1 due, 2 dead, 3 trial, then rows and bodies of each conversation, in pairs
-- ARGV 1 autosave_ms, 2 stream_ms, 3 channel of change hints, then triples: number of the conversation, its uid,
--      count n, followed by n pairs item's name, version now in Postgres (0: not committed; only clears a stale due entry: of a row clean, gone or dead)
-- Returns {rows made clean, rows still dirty}
-- An answer of the store ends the rows' trial in the same moment: it counts only what no flusher lived to see.
-- Prevents: a save that arrived between peek and commit being forgotten (its version is higher: it stays dirty and is
--      due again; an open item after a doubled interval, so that a long reply costs a small multiple of its size, unless somebody waits for it).
clock(0)
local autosave, stream = tonumber(ARGV[1]), tonumber(ARGV[2])
local clean, dirty = 0, 0
local i = 4
while i <= #ARGV do
  local which, uid, n = tonumber(ARGV[i]), ARGV[i + 1], tonumber(ARGV[i + 2])
  i = i + 3
  use(KEYS[which * 2 + 2], KEYS[which * 2 + 3])
  local forget, again, undead, tried = {}, {}, {}, {}
  local clean_before = clean
  for _ = 1, n do
    local name, version = ARGV[i], tonumber(ARGV[i + 1])
    i = i + 2
    local member = uid .. '/' .. name
    tried[#tried + 1] = member
    local r = H and row(name)
    if not r or not r.y then
      forget[#forget + 1] = member
    elseif r.x and version < r.v then
      -- A dead letter is in no index; that an older version of it is stored changes nothing.
      if version > (r.z or 0) then r.z = version; put_row(name, r) end
      forget[#forget + 1] = member
    elseif version > 0 then
      if version > (r.z or 0) then r.z = version end
      if (r.pl or 0) <= version then r.pl = nil end
      if r.v <= version then
        r.y = nil
        H.dirty = H.dirty - 1
        if r.x then r.x = nil; H.dead = H.dead - 1; undead[#undead + 1] = member end
        if is_open(r) then r.i = math.min((r.i or stream) * 2, autosave) end
        forget[#forget + 1] = member
        clean = clean + 1
        if string.sub(name, 1, 2) == 'v/' then
          R[name], RCHANGED[name], B[name] = false, true, false
        else
          put_row(name, r)
        end
      else
        r.y = NOW
        local at = NOW
        if is_open(r) then
          r.i = math.min((r.i or stream) * 2, autosave)
          if not r.pl then at = NOW + r.i end
        end
        again[#again + 1] = num(at)
        again[#again + 1] = member
        dirty = dirty + 1
        put_row(name, r)
      end
      HCHANGED = true
    end
  end
  write()
  if #tried > 0 then redis.call('HDEL', KEYS[3], unpack(tried)) end
  if #forget > 0 then redis.call('ZREM', KEYS[1], unpack(forget)) end
  if #again > 0 then redis.call('ZADD', KEYS[1], unpack(again)) end
  if #undead > 0 then redis.call('HDEL', KEYS[2], unpack(undead)) end
  -- Live readers are told that it is stored.
  if clean > clean_before then redis.call('SPUBLISH', ARGV[3], uid .. ' ' .. num(H.last)) end
end
return { clean, dirty }
