#!lua
-- Purpose: make a staged base the hot conversation: renamed into place where there was none; where there is one adopted
--      under another buffer epoch (the buffer was rolled back, or may have been), merged into it row by row by version.
-- KEYS 1 meta, 2 epoch, 3 rows, 4 bodies, 5 staged rows, 6 staged bodies, 7 due, 8 open, 9 idle, 10 dead, 11 journal
-- ARGV 1 request, a MessagePack map: uid, epoch (before the load), header (n, bytes, last, owner, id, mp, ph),
--        open [[name, deadline] ..], force (merge although the buffer epoch is the same: a flush saw a newer row in
--        Postgres), full
-- Returns ok | merged | moved (epoch) | hot (already there) | uninit | lost (staging expired)
-- Prevents: a base older than a commit since (every eviction raises the epoch), a half-staged base, a rolled-back row
--      that hides a newer one, and dirty rows lost to an older base.
local req = cmsgpack.unpack(ARGV[1])
clock(0)
local meta = redis.call('HGET', KEYS[1], 'e')
if not meta then return 'uninit' end
if tonumber(redis.call('GET', KEYS[2]) or '0') ~= req.epoch then return 'moved' end
local hot = use(KEYS[3], KEYS[4])
if hot and H.be == meta and not req.force then return 'hot' end
local staged = redis.call('HLEN', KEYS[5])
if staged ~= req.header.rows then return 'lost' end
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
AT = { uid = req.uid, due = KEYS[7], open = KEYS[8], dead = KEYS[10], stream_ms = 1000 }
local deadlines = {}
for _, entry in ipairs(req.open) do deadlines[entry[1]] = entry[2] end
local forget = {}
local flat = redis.call('HGETALL', KEYS[5])
local known = {}
for i = 1, #flat, 2 do
  local name, theirs, ours = flat[i], unpack_(flat[i + 1]), row(flat[i])
  known[name] = true
  if not ours or theirs.v > ours.v then
    if ours then
      drop_bodies(name, ours)
      if ours.y then H.dirty = H.dirty - 1; forget[#forget + 1] = req.uid .. '/' .. name end
      if ours.x then H.dead = H.dead - 1; UNDEAD[#UNDEAD + 1] = name end
    elseif name ~= 'c/' then
      H.n = H.n + 1
    end
    H.bytes = H.bytes + (theirs.b or 0) - (ours and ours.b or 0)
    if ours and ours.o then H.open = H.open - 1; OPENED[name] = false end
    if theirs.o then H.open = H.open + 1; OPENED[name] = theirs.o end
    for field in pairs(theirs.k or {}) do
      B[name .. '/' .. field] = redis.call('HGET', KEYS[6], name .. '/' .. field)
    end
    for n = 0, (theirs.n or 0) - 1 do
      B[part_field(name, n)] = redis.call('HGET', KEYS[6], part_field(name, n))
      B[text_field(name, tostring(n))] = redis.call('HGET', KEYS[6], text_field(name, tostring(n)))
    end
    put_row(name, theirs)
  elseif theirs.v == ours.v then
    if ours.y then
      ours.y = nil
      H.dirty = H.dirty - 1
      forget[#forget + 1] = req.uid .. '/' .. name
      if ours.x then ours.x = nil; H.dead = H.dead - 1; UNDEAD[#UNDEAD + 1] = name end
    end
    ours.z = theirs.v
    put_row(name, ours)
  else
    ours.z = theirs.v
    put_row(name, ours)
  end
end
-- What was clean here and is not there was lost by Postgres: it is dirty again.
for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do
  local kind = string.sub(name, 1, 2)
  if not known[name] and (kind == 'm/' or kind == 't/' or kind == 'a/' or kind == 'c/') then
    local r = row(name)
    r.z = 0
    if not r.y then mark(name, r, NOW) else put_row(name, r) end
  end
end
H.last = math.max(H.last, req.header.last)
H.mp = math.max(H.mp or 0, req.header.mp)
H.be = meta
HCHANGED = true
write()
write_indexes()
for i = 1, #forget, 1000 do redis.call('ZREM', KEYS[7], unpack(forget, i, math.min(i + 999, #forget))) end
redis.call('UNLINK', KEYS[5], KEYS[6])
return 'merged'
