#!lua
-- Purpose: apply commands to one conversation, in order; everything it needs is read before anything is written.
--   hot:    the conversation is in the buffer (or known to be nowhere: fresh, or Postgres said so at this epoch).
--   blind:  Postgres is away and the base unknown: apply to the image of blind saves, append each to the journal. A
--           conversation adopted under another buffer epoch may be older than its base: its image starts as a copy of it.
--   replay: apply the head of the journal to the adopted base, and pop it, in one.
-- KEYS 1 meta, 2 epoch, 3 rows, 4 bodies, 5 due, 6 open, 7 idle, 8 bell, 9 hold, 10 dead, 11 journal, 12 blind,
--      13 image rows, 14 image bodies, 15 owner's index (absent where it lies in another slot: the caller lists then)
-- ARGV 1 request, a MessagePack map: mode, uid, owner, id, now_us (0: the server's TIME), commands [..] (hot, blind),
--      count, replay_bytes (replay: entries at most; none more from this size on), fresh, base (epoch at which Postgres held nothing; -1 unknown), pull, expect_mp
--      (-1: any), full, stream_ms, autosave_ms, stale_ms, stale_tool_ms, stale_approval_ms, item, items, bytes,
--      parts, links (limits; none at a replay: what was acknowledged is kept), window_ms, bell_ms,
--      of (the number of partitions the caller knows)
--      2 channel of change hints (shard)
-- Returns a MessagePack map: s done | uninit (or of another number of partitions) | cold (p epoch) | blind | hot | suspect | moved | gone;
--      with done: e buffer epoch, v the conversation's version, items [outcome ..], ring, list (without KEYS 15:
--      version of the conversation's row while it is dirty), left (replay: entries not yet applied), lost (replay: outcome -> number
--      of entries superseded)
-- Prevents: a save between load and installation of a base (epoch), a save that overtakes the journal, a crash between
--      a change and its due entry, a reader of half a sync, a decision on rows that may be older than Postgres'.
-- Versions told while blind are exceeded by those after the replay.
-- No allow-oom flag: under memory pressure it is refused whole. The same text, flagged, is the script "erase": for calls
-- that only delete, which must get through; and "replay", for journals that fill the buffer (flush.py, BEYOND_SHARE).
local req = cmsgpack.unpack(ARGV[1])
clock(req.now_us)
local meta = redis.call('HMGET', KEYS[1], 'e', 'n')
if not meta[1] or meta[2] ~= req.of then return pack_({ s = 'uninit' }) end
local blind = req.mode == 'blind'
local journaled = redis.call('EXISTS', KEYS[11]) == 1
if req.mode == 'hot' and journaled then return pack_({ s = 'blind', e = meta[1] }) end
if req.mode == 'replay' and not journaled then return pack_({ s = 'done', e = meta[1], v = 0, left = 0, items = {} }) end
local copied = false
if blind then
  if not journaled and use(KEYS[3], KEYS[4]) then
    if H.be == meta[1] then return pack_({ s = 'hot', e = meta[1] }) end
    copied = true
  else
    use(KEYS[13], KEYS[14])
  end
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
end
if blind and not H.blind then H.blind = 1; HCHANGED = true end
local before = H.last
if not blind and H.be ~= meta[1] then return pack_({ s = 'suspect', e = meta[1] }) end
if req.expect_mp >= 0 and H.mp ~= req.expect_mp then return pack_({ s = 'moved', e = meta[1] }) end

AT = {
  uid = req.uid, due = KEYS[5], open = KEYS[6], dead = KEYS[10], pull = req.pull, stream_ms = req.stream_ms,
  stale_ms = req.stale_ms, stale_tool_ms = req.stale_tool_ms, stale_approval_ms = req.stale_approval_ms, later = {},
}
LIMIT = { item = req.item, items = req.items, bytes = req.bytes, parts = req.parts, links = req.links }

local commands, entries, told, left = req.commands, nil, {}, 0
if req.mode == 'replay' then
  for name in pairs(LIMIT) do LIMIT[name] = math.huge end
  entries = {}
  local size = 0
  repeat
    local raw = redis.call('LINDEX', KEYS[11], #entries)
    entries[#entries + 1] = raw or nil
    size = size + #(raw or '')
  until not raw or #entries >= req.count or size >= req.replay_bytes
  left = redis.call('LLEN', KEYS[11]) - #entries
  commands = {}
  for i, raw in ipairs(entries) do
    local entry = unpack_(raw)
    commands[i] = entry.c
    told[i] = entry
    if entry.l > H.last then H.last = entry.l; HCHANGED = true end
  end
end

local c = row('c/')
if c and c.d and not entries then
  for _, cmd in ipairs(commands) do
    if not (cmd.op == 'delete' and cmd.k == 'c') then return pack_({ s = 'gone', e = meta[1], v = c.v }) end
  end
end

-- ------------------------------------------------------------------ what a blind save may be judged on
-- A row of the image says in "j" what the journal says of its item: n the journal made it, c its content, p its parts,
-- s its status. All else may be otherwise in the base: who asks for it is told to come again.
local function says(r, what) return r ~= nil and r.j ~= nil and string.find(r.j, what, 1, true) ~= nil end
local function text_at(cmd) return cmd.op == 'append' and not cmd.part and 'c' or 'p' end
local function is_step(cmd) return cmd.op == 'append' or cmd.op == 'part' end

-- A step to a text that the journal knows nothing of.
local function out_of_sight(cmd, r)
  return is_step(cmd) and r ~= nil and not r.d and not says(r, 'n') and not says(r, text_at(cmd))
end
-- A refusal that the base might not give.
local function uncertain(cmd, o, r)
  if o == 'not-found' or o == 'revision-conflict' then return true end
  if o == 'terminal' and not says(r, 's') then return true end
  local of_text = o == 'terminal' or o == 'append-gap' or o == 'append-mismatch' or o == 'part-gap' or o == 'not-text'
    or o == 'surrogate-split'
  return of_text and not says(r, text_at(cmd))
end
-- What changes nothing in the image may change what only the base has: a field cleared, an item that is open there.
local function may_count(cmd)
  if cmd.op == 'append' then return cmd.st ~= nil or cmd.rev ~= nil or cmd.reason ~= nil end
  return cmd.op ~= 'delete'
end
local function note_said(cmd, out, r)
  if cmd.k == 'c' or cmd.op == 'delete' or out.o == 'noop' then return end
  local said = r.j or ''
  local function add(what) if not string.find(said, what, 1, true) then said = said .. what end end
  if out.c then add('n') end
  if cmd.st then add('s') end
  if cmd.op == 'put' and cmd.body and cmd.body.content ~= nil then add('c') end
  if cmd.op == 'put' and cmd.parts ~= nil then add('p') end
  if said ~= (r.j or '') then r.j = said; put_row(cmd.k .. '/' .. cmd.id, r) end
end

-- ------------------------------------------------------------------ a sync's new messages before known ones
-- Where the base is not in sight, a new message names the one that follows it, and is placed when that one is there:
-- in the image, and once more at the replay, which nobody watches. The header's "nb" (message -> those before it) lasts
-- as long. threads.place_before_known does the same for a base that is known.
local all_rows = false
local function place(id, right)
  local m, left = row('m/' .. id), ''
  if not all_rows then
    for _, name in ipairs(redis.call('HKEYS', ROWS)) do if string.sub(name, 1, 2) == 'm/' then row(name) end end
    all_rows = true
  end
  for name, r in pairs(R) do
    if r and r ~= m and string.sub(name, 1, 2) == 'm/' and below(left, r.p) and below(r.p, right) then left = r.p end
  end
  m.p = between(left, right)
  put_row('m/' .. id, m)
end
local function arrived(id, following)
  if following then
    local known = row('m/' .. following)
    if known then
      if below(known.p, row('m/' .. id).p) then place(id, known.p) end
    else
      H.nb = H.nb or {}
      H.nb[following] = H.nb[following] or {}
      table.insert(H.nb[following], id)
    end
  end
  -- Those before it, and those before them: they came earlier, so this ends.
  local moved = { id }
  while H.nb and #moved > 0 do
    local at = table.remove(moved)
    for _, earlier in ipairs(H.nb[at] or {}) do
      local p = row('m/' .. at).p
      if row('m/' .. earlier) and below(p, row('m/' .. earlier).p) then
        place(earlier, p)
        moved[#moved + 1] = earlier
      end
    end
  end
end

-- A journal of another buffer epoch may be a copy set back: it was applied once, and what Postgres got after it is newer.
-- While it waited nothing was flushed, so a row that Postgres has newer than the entry has the entry behind it. (A server
-- that was only started anew looks the same; there a row is that new only if the clock went back since, which shows while
-- its version lies ahead of the clock.)
local function applied_before(entry, r)
  if not entry.e or entry.e == meta[1] or entry.c.op == 'delete' or not r then return false end
  return (r.z or 0) > entry.u and r.z <= NOW_US + 1000000
end

local items, journal, lost = {}, {}, {}
local changed = false
local real_now = NOW
for i, cmd in ipairs(commands) do
  local name = cmd.k .. '/' .. cmd.id
  local conversation = row('c/')
  local out
  -- What a client sees of time is when it saved.
  if entries then NOW = math.min(told[i].t or real_now, real_now) end
  if conversation and conversation.d and not (cmd.op == 'delete' and cmd.k == 'c') then
    out = { k = cmd.k, id = cmd.id, o = 'gone' }
  elseif blind and out_of_sight(cmd, row(name)) then
    out = { k = cmd.k, id = cmd.id, o = 'unavailable' }
  elseif entries and applied_before(told[i], row(name)) then
    out = { k = cmd.k, id = cmd.id, o = 'noop', v = row(name).v }
  else
    out = apply(cmd)
    if blind and uncertain(cmd, out.o, row(name)) then out = { k = cmd.k, id = cmd.id, o = 'unavailable' } end
    if out.c and cmd.k == 'm' then arrived(cmd.id, cmd.before) end
  end
  items[i] = out
  local acknowledged = out.o == 'accepted' or out.o == 'duplicate' or out.o == 'noop'
  if blind and acknowledged then
    note_said(cmd, out, row(name))
    if out.o == 'accepted' or may_count(cmd) then
      journal[#journal + 1] = {
        c = cmd, v = out.v, t = NOW, o = out.o ~= 'accepted' and out.o or nil, e = meta[1], u = math.max(out.v, NOW_US),
      }
    end
  end
  if out.o == 'accepted' then
    changed = true
  elseif entries then
    if out.o ~= 'duplicate' and out.o ~= told[i].o then lost[out.o] = (lost[out.o] or 0) + 1 end
    -- What stands instead is newer than what was acknowledged in the blind, and must not look older.
    local r = row(name)
    if r and r.v < told[i].v then
      r.v = stamp()
      mark(name, r)
      out.v = r.v
      changed = true
    end
  end
end
NOW = real_now
if entries then
  -- Nobody knows what signs of life there were: silence counts from here.
  for name in pairs(RCHANGED) do
    local r = R[name]
    if r and r.o then
      r.t = NOW
      schedule_open(name, r)
    end
  end
end
if not blind and left == 0 then H.nb = nil end
-- With each entry what its save was told: the item's version, and the conversation's.
for i, entry in ipairs(journal) do
  entry.l = H.last
  journal[i] = pack_(entry)
end

-- Writes from here on.
if changed then H.t = NOW; HCHANGED = true end
lost = some(lost)
if (fresh_header and not changed) or (copied and #journal == 0) then
  -- Nothing was accepted: leave no trace of a conversation that holds nothing.
  return pack_({ s = 'done', e = meta[1], v = H.last, items = items, ring = false, left = left, lost = lost })
end
local ring = false
if blind then
  DUE, OPENED, UNDEAD = {}, {}, {}
  if copied then
    redis.call('COPY', KEYS[3], KEYS[13], 'REPLACE')
    redis.call('COPY', KEYS[4], KEYS[14], 'REPLACE')
    ROWS, BODIES = KEYS[13], KEYS[14]
  end
  for _, call in ipairs(AT.later) do if call[1] == 'UNLINK' then redis.call('UNLINK', BODIES) end end
  write()
  if #journal > 0 then
    redis.call('RPUSH', KEYS[11], unpack(journal))
    redis.call('ZADD', KEYS[12], 'NX', num(NOW), req.uid)
  end
else
  for _, call in ipairs(AT.later) do redis.call(unpack(call)) end
  if entries and left == 0 then H.bl = nil; HCHANGED = true end
  for _, cmd in ipairs(req.pull and commands or {}) do
    local name = cmd.k .. '/' .. cmd.id
    local r = row(name)
    if r and r.y and not r.x then
      r.pl = r.v
      DUE[name] = NOW
      put_row(name, r)
    end
  end
  write()
  local least = write_indexes()
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
local list = c and c.y and c.v or nil
if list and KEYS[15] then
  redis.call('ZADD', KEYS[15], 'GT', num(list), req.uid)
  list = nil
end
return pack_({
  s = 'done', e = meta[1], v = H.last, items = items, ring = ring, left = left, lost = lost,
  list = list,
})
