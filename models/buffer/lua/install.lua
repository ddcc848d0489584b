#!lua
-- Purpose: make a staged base the hot conversation: renamed into place where there was none; where there is one adopted
--      under another buffer epoch (the buffer was rolled back, or may have been), merged into it row by row by version.
-- KEYS 1 meta, 2 epoch, 3 rows, 4 bodies, 5 staged rows, 6 staged bodies, 7 due, 8 open, 9 idle, 10 dead, 11 journal
-- ARGV 1 request, a MessagePack map: uid, epoch (before the load), header (n, bytes, last, owner, id, mp, ph),
--        open [[name, deadline] ..], force (merge although the buffer epoch is the same: a flush saw a newer row in
--        Postgres), full, of (partitions, as save)
-- Returns ok | merged | moved (epoch) | hot (already there) | uninit | lost (staging expired)
-- Refused by a full buffer; the same text, flagged, is the script "reinstall": for the base of a journal that fills it.
-- Prevents: a base older than a commit since (every eviction raises the epoch), a half-staged base, a rolled-back row
--      that hides a newer one, dirty rows lost to an older base, and rows Postgres lost that would count as stored.
local req = cmsgpack.unpack(ARGV[1])
clock(0)
local function refuse(word)
  redis.call('UNLINK', KEYS[5], KEYS[6])
  return word
end
local meta, of = unpack(redis.call('HMGET', KEYS[1], 'e', 'n'))
if not meta or of ~= req.of then return refuse('uninit') end
if tonumber(redis.call('GET', KEYS[2]) or '0') ~= req.epoch then return refuse('moved') end
local hot = use(KEYS[3], KEYS[4])
if hot and H.be == meta and not req.force then return refuse('hot') end
local staged = redis.call('HLEN', KEYS[5])
if staged ~= req.header.rows then return refuse('lost') end
if not hot then
  local h = req.header
  h.rows = nil
  h.f, h.be, h.dirty, h.dead, h.open, h.t = 1, meta, 0, 0, #req.open, NOW
  if redis.call('EXISTS', KEYS[11]) == 1 then h.bl = 1 end
  if staged > 0 then
    redis.call('RENAME', KEYS[5], KEYS[3])
    redis.call('PERSIST', KEYS[3])
  end
  if redis.call('EXISTS', KEYS[6]) == 1 then
    redis.call('RENAME', KEYS[6], KEYS[4])
    redis.call('PERSIST', KEYS[4])
  end
  redis.call('HSET', KEYS[3], 'h', pack_(h))
  for _, entry in ipairs(req.open) do redis.call('ZADD', KEYS[8], num(entry[2]), req.uid .. '/' .. entry[1]) end
  redis.call('ZADD', KEYS[9], num(NOW), req.uid)
  return 'ok'
end

-- Row by row.
AT = { uid = req.uid, due = KEYS[7], open = KEYS[8], dead = KEYS[10], stream_ms = 1000 }
local forget, known = {}, {}
local function counted(name) return string.find(name, '^[mta]/') ~= nil end
local function clean(name, ours)
  if ours.y then
    ours.y = nil
    H.dirty = H.dirty - 1
    forget[#forget + 1] = req.uid .. '/' .. name
  end
  if ours.x then
    ours.x = nil
    H.dead = H.dead - 1
    UNDEAD[#UNDEAD + 1] = name
  end
end
local function dirty(name, ours)
  if ours.y then put_row(name, ours) else mark(name, ours, NOW) end
end
local function staged_body(field) B[field] = redis.call('HGET', KEYS[6], field) end
local function merge(name, theirs)
  known[name] = true
  local ours = row(name)
  if ours and theirs.v <= ours.v then
    ours.z = theirs.v
    -- Equal: stored. Older there: Postgres does not have what is here, whatever was thought before.
    if theirs.v == ours.v then clean(name, ours); put_row(name, ours) else dirty(name, ours) end
    return
  end
  if ours then
    drop_bodies(name, ours)
    clean(name, ours)
  elseif counted(name) then
    H.n = (H.n or 0) + 1
  end
  H.bytes = (H.bytes or 0) + (theirs.b or 0) - (ours and ours.b or 0)
  if ours and ours.o then H.open = H.open - 1; OPENED[name] = false end
  if theirs.o then H.open = (H.open or 0) + 1; OPENED[name] = theirs.o end
  for field in pairs(theirs.k or {}) do staged_body(name .. '/' .. field) end
  for n = 0, (theirs.n or 0) - 1 do
    staged_body(part_field(name, n))
    staged_body(text_field(name, tostring(n)))
  end
  put_row(name, theirs)
end

local staged_rows, waiting = {}, {}
local flat = redis.call('HGETALL', KEYS[5])
for i = 1, #flat, 2 do
  local into = string.sub(flat[i], 1, 2) == 'l/' and waiting or staged_rows
  into[flat[i]] = unpack_(flat[i + 1])
end
local names = redis.call('HKEYS', KEYS[3])
H.last = math.max(H.last, req.header.last)
if staged_rows['c/'] then merge('c/', staged_rows['c/']) end
local c = row('c/')
if c and not known['c/'] then c.z = 0; dirty('c/', c) end
if c and c.d then
  -- Deleted, here or there: nothing but the tombstone is of use.
  for _, name in ipairs(names) do
    if name ~= 'h' and name ~= 'c/' then
      local ours = row(name)
      forget[#forget + 1] = req.uid .. '/' .. name
      OPENED[name] = false
      if ours.x then UNDEAD[#UNDEAD + 1] = name end
      put_row(name, false)
    end
  end
  B = {}
  redis.call('UNLINK', KEYS[4])
  H.n, H.bytes, H.open, H.dirty, H.dead = 0, 0, 0, c.y and 1 or 0, c.x and 1 or 0
else
  for name, theirs in pairs(staged_rows) do
    if name ~= 'c/' then merge(name, theirs) end
  end
  for _, links in pairs(waiting) do H.bytes = (H.bytes or 0) + (links.b or 0) end
  -- What is here and not there was lost by Postgres, or never reached it: it is dirty.
  for _, name in ipairs(names) do
    if not known[name] and counted(name) then
      local ours = row(name)
      ours.z = 0
      dirty(name, ours)
    elseif string.sub(name, 1, 2) == 'l/' then
      waiting[name] = waiting[name] or {}
      H.bytes = H.bytes - (row(name).b or 0)
      add_links(waiting[name], 'lr', row(name).lr or {})
      add_links(waiting[name], 'la', row(name).la or {})
    end
  end
  -- Links that waited for a message which the other side has.
  for name, links in pairs(waiting) do
    local message = 'm/' .. string.sub(name, 3)
    local m = row(message)
    if m then
      local results, artifacts = add_links(m, 'lr', links.lr or {}), add_links(m, 'la', links.la or {})
      if not m.d and (results or artifacts) then
        m.v, m.u = stamp(), NOW
        mark(message, m)
      end
      H.bytes = H.bytes - (links.b or 0)
      put_row(name, false)
    else
      put_row(name, links)
    end
  end
end
-- Whoever placed messages by what he saw before looks again.
H.mp = H.last
H.be = meta
if redis.call('EXISTS', KEYS[11]) == 1 then H.bl = 1 end
HCHANGED = true
for i = 1, #forget, 1000 do redis.call('ZREM', KEYS[7], unpack(forget, i, math.min(i + 999, #forget))) end
write()
write_indexes()
redis.call('UNLINK', KEYS[5], KEYS[6])
return 'merged'
