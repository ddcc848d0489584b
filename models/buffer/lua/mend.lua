#!lua flags=allow-oom
-- Purpose: bring counters and indexes of one conversation in line with its rows, which are the truth; make named rows
--      newer than they are, so that Postgres takes them; forget named rows, so that the next touch adopts what Postgres
--      has of them. For `verify --repair`.
-- KEYS 1 rows, 2 bodies, 3 due, 4 open, 5 idle, 6 dead, 7 journal, 8 blind
-- ARGV 1 request, a MessagePack map: uid; why (JSON) for dead letters without a reason; newer and forget [[name,
--        version] ..], each only while it is clean and has that version; indexed [name ..] that an index was seen to hold
-- Returns 1
-- Prevents: a correction made from an old look (everything is derived anew, here); a row in no index, which nobody would
--      ever flush; a key with a lifetime.
clock(0)
local req = cmsgpack.unpack(ARGV[1])
local uid = req.uid
local journaled = redis.call('LLEN', KEYS[7]) > 0
local stray = {}
for _, name in ipairs(req.indexed) do stray[name] = true end
local hot = use(KEYS[1], KEYS[2])
AT = { uid = uid, due = KEYS[3], open = KEYS[4], dead = KEYS[6], stream_ms = 1000 }
local found = {}
if hot then
  for _, pair in ipairs(req.newer) do
    local r = row(pair[1])
    if r and r.v == pair[2] and not r.y then
      r.v = stamp()
      r.w = r.v
      mark(pair[1], r, NOW)
    end
  end
  for _, pair in ipairs(req.forget) do
    local r = row(pair[1])
    if r and r.v == pair[2] and not r.y then
      drop_bodies(pair[1], r)
      put_row(pair[1], false)
      H.be = ''
    end
  end
  H.n, H.bytes, H.dirty, H.dead, H.open = 0, 0, 0, 0, 0
  HCHANGED = true
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    local kind = string.sub(name, 1, 2)
    local r = name ~= 'h' and row(name)
    if r and kind == 'l/' then
      H.bytes = H.bytes + (r.b or 0)
    elseif r then
      found[#found + 1] = { name, r }
      stray[name] = nil
      if kind ~= 'v/' then H.bytes = H.bytes + (r.b or 0) end
      if kind ~= 'v/' and kind ~= 'c/' then H.n = H.n + 1 end
      if r.y then H.dirty = H.dirty + 1 end
      if r.x then H.dead = H.dead + 1 end
      if r.o then H.open = H.open + 1 end
    end
  end
end

-- Writes from here on.
if journaled then redis.call('ZADD', KEYS[8], 'NX', num(NOW), uid) else redis.call('ZREM', KEYS[8], uid) end
if hot then
  write()
  write_indexes()
  redis.call('ZADD', KEYS[5], 'NX', num(H.t or NOW), uid)
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
else
  redis.call('ZREM', KEYS[5], uid)
end
for _, entry in ipairs(found) do
  local member, r = uid .. '/' .. entry[1], entry[2]
  if r.y and not r.x then redis.call('ZADD', KEYS[3], 'NX', num(NOW), member) else redis.call('ZREM', KEYS[3], member) end
  if r.o then redis.call('ZADD', KEYS[4], num(r.o), member) else redis.call('ZREM', KEYS[4], member) end
  if r.x then redis.call('HSETNX', KEYS[6], member, req.why) else redis.call('HDEL', KEYS[6], member) end
end
for name in pairs(stray) do
  local member = uid .. '/' .. name
  redis.call('ZREM', KEYS[3], member)
  redis.call('ZREM', KEYS[4], member)
  redis.call('HDEL', KEYS[6], member)
end
return 1
