#!lua
-- Purpose: apply commands to one conversation, in order; everything it needs is read before anything is written.
--   hot:    the conversation is in the buffer (or known to be nowhere: fresh, or Postgres said so at this epoch).
--   blind:  Postgres is away and the base unknown: apply to the image of blind saves, append each to the journal.
--   replay: apply the head of the journal to the adopted base, and pop it, in one.
-- KEYS 1 meta, 2 epoch, 3 rows, 4 bodies, 5 due, 6 open, 7 idle, 8 bell, 9 hold, 10 dead, 11 journal, 12 blind,
--      13 image rows, 14 image bodies
-- ARGV 1 request, a MessagePack map: mode, uid, owner, id, now_us (0: the server's TIME), commands [..] (hot, blind),
--      count (replay: entries at most), fresh, base (epoch at which Postgres held nothing; -1 unknown), trust (accept a
--      conversation adopted under another buffer epoch), pull, expect_mp (-1: any), full, stream_ms, autosave_ms,
--      stale_ms, stale_tool_ms, stale_approval_ms, item, items, bytes, parts, links (limits), window_ms, bell_ms
--      2 channel of change hints (shard)
-- Returns a MessagePack map: s done | uninit | cold (p epoch) | blind | hot | suspect | moved | gone;
--      with done: e buffer epoch, v the conversation's version, items [outcome ..], ring, list (version of the
--      conversation's row while it is dirty), left (replay: entries not yet applied), lost (replay: superseded ones)
-- Prevents: a save between load and installation of a base (epoch), a save that overtakes the journal, a crash between
--      a change and its due entry, a reader of half a sync.
-- Versions told while blind are exceeded by those after the replay.
-- No allow-oom flag: under memory pressure it is refused whole. The same text, flagged, is the script "erase": for calls
-- that only delete, which must get through.
local req = cmsgpack.unpack(ARGV[1])
clock(req.now_us)
local meta = redis.call('HMGET', KEYS[1], 'e', 'f')
if not meta[1] then return pack_({ s = 'uninit' }) end
local blind = req.mode == 'blind'
local journaled = redis.call('EXISTS', KEYS[11]) == 1
if req.mode == 'hot' and journaled then return pack_({ s = 'blind', e = meta[1] }) end
if req.mode == 'replay' and not journaled then return pack_({ s = 'done', e = meta[1], v = 0, left = 0, lost = 0, items = {} }) end
if blind then
  if not journaled and redis.call('EXISTS', KEYS[3]) == 1 then return pack_({ s = 'hot', e = meta[1] }) end
  use(KEYS[13], KEYS[14])
  EXPECT_UNKNOWN = true
else
  use(KEYS[3], KEYS[4])
end
local fresh_header = H == nil
if not H then
  if not blind then
    local epoch = tonumber(redis.call('GET', KEYS[2]) or '0')
    if req.mode == 'replay' or not (req.fresh or req.base == epoch) then
      return pack_({ s = 'cold', e = meta[1], p = epoch })
    end
  end
  H = { f = 1, owner = req.owner, id = req.id, be = meta[1], last = 0, n = 0, bytes = 0, dirty = 0, dead = 0, open = 0, mp = 0 }
  if blind then H.blind = 1 end
end
local before = H.last
if not blind and H.be ~= meta[1] and not req.trust then return pack_({ s = 'suspect', e = meta[1] }) end
if req.expect_mp >= 0 and H.mp ~= req.expect_mp then return pack_({ s = 'moved', e = meta[1] }) end

AT = {
  uid = req.uid, due = KEYS[5], open = KEYS[6], dead = KEYS[10], pull = req.pull, stream_ms = req.stream_ms,
  stale_ms = req.stale_ms, stale_tool_ms = req.stale_tool_ms, stale_approval_ms = req.stale_approval_ms, later = {},
}
LIMIT = { item = req.item, items = req.items, bytes = req.bytes, parts = req.parts, links = req.links }

local commands, entries, told, left = req.commands, nil, {}, 0
if req.mode == 'replay' then
  entries = redis.call('LRANGE', KEYS[11], 0, req.count - 1)
  left = redis.call('LLEN', KEYS[11]) - #entries
  commands = {}
  for i, raw in ipairs(entries) do
    local entry = unpack_(raw)
    commands[i] = entry.c
    told[i] = entry.v
    if entry.l > H.last then H.last = entry.l; HCHANGED = true end
  end
end

local c = row('c/')
if c and c.d and not entries then
  for _, cmd in ipairs(commands) do
    if not (cmd.op == 'delete' and cmd.k == 'c') then return pack_({ s = 'gone', e = meta[1], v = c.v }) end
  end
end

local items, journal, lost = {}, {}, 0
local changed = false
for i, cmd in ipairs(commands) do
  local out
  local conversation = row('c/')
  if conversation and conversation.d and not (cmd.op == 'delete' and cmd.k == 'c') then
    out = { k = cmd.k, id = cmd.id, o = 'gone' }
  else
    out = apply(cmd)
  end
  items[i] = out
  -- A put that equals what was saved blind may still clear what only the base has: it is tried again with the base.
  if blind and (out.o == 'accepted' or (out.o == 'duplicate' and cmd.op == 'put')) then
    journal[#journal + 1] = { c = cmd, v = out.v }
  end
  if out.o == 'accepted' then
    changed = true
  elseif entries then
    if out.o ~= 'duplicate' then lost = lost + 1 end
    -- What stands instead is newer than what was acknowledged in the blind, and must not look older.
    local name = cmd.k .. '/' .. cmd.id
    local r = row(name)
    if r and r.v < told[i] then
      r.v = stamp()
      mark(name, r)
      out.v = r.v
      changed = true
    end
  end
end
-- With each entry what its save was told: the item's version, and the conversation's.
for i, entry in ipairs(journal) do
  entry.l = H.last
  journal[i] = pack_(entry)
end

-- Writes from here on.
if changed then H.t = NOW; HCHANGED = true end
if fresh_header and not changed then
  -- Nothing was accepted: leave no trace of a conversation that holds nothing.
  return pack_({ s = 'done', e = meta[1], v = H.last, items = items, ring = false, left = left, lost = lost })
end
local ring = false
if blind then
  DUE, OPENED, UNDEAD = {}, {}, {}
  for _, call in ipairs(AT.later) do if call[1] == 'UNLINK' then redis.call(unpack(call)) end end
  write()
  if #journal > 0 then
    redis.call('RPUSH', KEYS[11], unpack(journal))
    redis.call('ZADD', KEYS[12], 'NX', num(NOW), req.uid)
  end
else
  for _, call in ipairs(AT.later) do redis.call(unpack(call)) end
  if entries and left == 0 then H.bl = nil; HCHANGED = true end
  write()
  local least = write_indexes()
  if req.pull then
    local pulled = {}
    for _, cmd in ipairs(commands) do
      local r = row(cmd.k .. '/' .. cmd.id)
      if r and r.y and not r.x then pulled[#pulled + 1] = num(NOW); pulled[#pulled + 1] = req.uid .. '/' .. cmd.k .. '/' .. cmd.id end
    end
    if #pulled > 0 then
      redis.call('ZADD', KEYS[5], 'LT', unpack(pulled))
      least = NOW
    end
  end
  if changed then redis.call('ZADD', KEYS[7], num(NOW), req.uid) end
  if entries then
    redis.call('LTRIM', KEYS[11], #entries, -1)
    if left == 0 then
      redis.call('UNLINK', KEYS[13], KEYS[14])
      redis.call('ZREM', KEYS[12], req.uid)
    end
  end
  if least and least <= NOW + req.window_ms and redis.call('EXISTS', KEYS[9]) == 0
    and redis.call('SET', KEYS[8], num(NOW), 'NX', 'PX', req.bell_ms) then
    ring = true
  end
end
if changed then hint(ARGV[2], req.uid, before) end
c = row('c/')
return pack_({
  s = 'done', e = meta[1], v = H.last, items = items, ring = ring, left = left, lost = lost,
  list = c and c.y and c.v or nil,
})
