-- Shared by the scripts that look into a conversation: one conversation at a time is opened (rows, bodies), changed
-- in memory, and written at the end, so that a script reads before it writes and writes all or nothing.
--
-- Data dictionary. A conversation is two hashes (see keys.py). MessagePack maps; absent means null or zero.
--   header "h":  f format 1 | owner, id the client's names | be buffer epoch it was adopted or made in
--                last highest version handed out | n items | bytes | dirty, dead, open: rows in that state
--                t ms of the last save | mp version at the last new message | bl 1: a blind journal is being replayed
--                ph purge horizon (versions below it may lack tombstones)
--                blind 1: an image of blind saves | nb message -> new messages that stand before it (save.lua)
--   row "K/I":   st status | sf settled from | r revision | v version | w version of the last change of its texts that was no append
--                z version known to be in Postgres (0 never) | p position | c created, u updated, d deleted, t touched ms
--                b bytes: bodies, PART_BYTES a part, links | o ms at which it is stale (a member of open) | i flush interval ms while open
--                y ms since when it is dirty (a member of due, unless dead) | x 1 dead letter
--                pl version that somebody waits for (pulled; until it is in Postgres)
--                f small fields | k body field -> {UTF-16 units, bytes} | n number of parts, pb their bytes
--                g growing text -> {chunks, units, bytes}; "c" content, "0", "1" … a part's text
--                q part -> {call, "tool"|"approval"}: what it waits for | lr, la linked results and artifacts
--                rk rank of a tool result's state | hn, hh number and hash of an artifact's last version
--                lm ms of the last new message (conversation's row only)
--                j what the journal says of the item (image only; save.lua)
--   row "l/I": lr, la what waits for message I | b its bytes
--   part "m/I/#i" in bodies: {skeleton, units or -1, bytes, rank, call, waits}
-- A growing text is its base field and chunks counted in base 16: sixteen chunks of a level become one of the next, so
-- appending is linear in the text, and a text never has more than a few dozen fields.

local unpack_ = cmsgpack.unpack
local pack_ = cmsgpack.pack
local FAN = 16
-- What a part counts beside its text: it is up to two fields of a hash, and 5 to 10 us for each look at it. What a link
-- counts beside its id.
local PART_BYTES, LINK_BYTES = 256, 16
local OPEN = { pending = 1, streaming = 2 }

local NOW_US, NOW
local function clock(given)
  if given and given ~= 0 then
    NOW_US = given
  else
    local t = redis.call('TIME')
    NOW_US = tonumber(t[1]) * 1000000 + tonumber(t[2])
  end
  NOW = math.floor(NOW_US / 1000)
end

-- What was touched this far ahead was touched under another clock.
local AHEAD_MS = 300000

local function num(n) return string.format('%.0f', n) end
local function some(t) if t and next(t) ~= nil then return t end return nil end

-- ------------------------------------------------------------------ the open conversation
local ROWS, BODIES, H, R, B, RCHANGED, HCHANGED
local function use(rows_key, bodies_key)
  ROWS, BODIES, R, B, RCHANGED, HCHANGED = rows_key, bodies_key, {}, {}, {}, false
  local raw = redis.call('HGET', rows_key, 'h')
  H = raw and unpack_(raw) or nil
  return H
end

local function row(name)
  local r = R[name]
  if r == nil then
    local raw = redis.call('HGET', ROWS, name)
    r = raw and unpack_(raw) or false
    R[name] = r
  end
  return r or nil
end
local function put_row(name, r) R[name] = r; RCHANGED[name] = true end

local function body(field)
  local v = B[field]
  if v == nil then v = redis.call('HGET', BODIES, field) end
  return v or nil
end

local function hset(key, pairs_)
  for i = 1, #pairs_, 1000 do
    redis.call('HSET', key, unpack(pairs_, i, math.min(i + 999, #pairs_)))
  end
end
local function hdel(key, fields)
  for i = 1, #fields, 1000 do
    redis.call('HDEL', key, unpack(fields, i, math.min(i + 999, #fields)))
  end
end

-- Writes what was changed in the open conversation.
local function write()
  local set, del = {}, {}
  for name in pairs(RCHANGED) do
    local r = R[name]
    if r then set[#set + 1] = name; set[#set + 1] = pack_(r) else del[#del + 1] = name end
  end
  if HCHANGED then set[#set + 1] = 'h'; set[#set + 1] = pack_(H) end
  hset(ROWS, set)
  hdel(ROWS, del)
  set, del = {}, {}
  for field, v in pairs(B) do
    if v then set[#set + 1] = field; set[#set + 1] = v else del[#del + 1] = field end
  end
  hset(BODIES, set)
  hdel(BODIES, del)
end

local function stamp()
  H.last = math.max(H.last + 1, NOW_US)
  HCHANGED = true
  return H.last
end

-- ------------------------------------------------------------------ UTF-16 units of UTF-8 text
local function units(s)
  if not string.find(s, '[\128-\255]') then return #s end
  local _, continued = string.gsub(s, '[\128-\191]', '')
  local _, four = string.gsub(s, '[\240-\247]', '')
  return #s - continued + four
end

-- Bytes of the prefix of s that has u units; nil when that would cut a surrogate pair. Halving keeps the count in C.
local function prefix_bytes(s, u)
  if not string.find(s, '[\128-\255]') then return u end
  local lo, hi, rest = 1, #s, u
  while hi - lo > 32 do
    local mid = math.floor((lo + hi) / 2)
    while true do
      local b = string.byte(s, mid)
      if b < 128 or b > 191 then break end
      mid = mid - 1
    end
    local c = units(string.sub(s, lo, mid - 1))
    if c <= rest then rest = rest - c; lo = mid else hi = mid - 1 end
  end
  while rest > 0 do
    local b = string.byte(s, lo)
    local width, u16 = 1, 1
    if b >= 240 then width, u16 = 4, 2 elseif b >= 224 then width = 3 elseif b >= 192 then width = 2 end
    if u16 > rest then return nil end
    lo, rest = lo + width, rest - u16
  end
  return lo - 1
end

-- The same, u units in all: from the end where that is near. Overlaps are short, texts are long.
local function split_at(s, offset, u)
  local rest = u - offset
  if rest * 4 > offset then return prefix_bytes(s, offset) end
  local at = #s
  while rest > 0 do
    local b = string.byte(s, at)
    while b > 127 and b < 192 do
      at = at - 1
      b = string.byte(s, at)
    end
    rest = rest - (b >= 240 and 2 or 1)
    at = at - 1
  end
  if rest < 0 then return nil end
  return at
end

-- ------------------------------------------------------------------ positions
-- Bytewise: the server's locale has a say in Lua's own "<".
local function below(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- As threads.between: a text between two others, read as digits of a fraction to base 62.
local DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
local function digit(text, i) return string.find(DIGITS, string.sub(text, i, i), 1, true) - 1 end
local function digit_of(value) return string.sub(DIGITS, value + 1, value + 1) end
local function between(left, right)
  local prefix, above = '', false
  for i = 1, math.max(#left, #right) + 2 do
    local low = i <= #left and digit(left, i) or 0
    local high = not above and i <= #right and digit(right, i) or #DIGITS
    if high - low > 1 then return prefix .. digit_of(math.floor((low + high) / 2)) end
    prefix = prefix .. digit_of(low)
    if high > low then above = true end
  end
end

-- ------------------------------------------------------------------ growing texts
local function text_field(name, ref)
  if ref == 'c' then return name .. '/content' end
  return name .. '/=' .. ref
end

local function chunk_fields(field, n)
  local digits, out = {}, {}
  while n > 0 do
    digits[#digits + 1] = n % FAN
    n = math.floor(n / FAN)
  end
  for level = #digits, 1, -1 do
    for d = 0, digits[level] - 1 do out[#out + 1] = field .. '+' .. (level - 1) .. '.' .. d end
  end
  return out
end

local function read_text(field, n)
  local out = { body(field) or '' }
  for _, f in ipairs(chunk_fields(field, n)) do out[#out + 1] = body(f) or '' end
  return table.concat(out)
end

local function text_of(name, r, ref)
  local g = r.g and r.g[ref]
  return read_text(text_field(name, ref), g and g[1] or 0)
end

local function push_chunk(field, n, text)
  B[field .. '+0.' .. (n % FAN)] = text
  n = n + 1
  local level, m = 0, n
  while m % FAN == 0 do
    local merged = {}
    for d = 0, FAN - 1 do
      local f = field .. '+' .. level .. '.' .. d
      merged[#merged + 1] = body(f)
      B[f] = false
    end
    m = math.floor(m / FAN)
    B[field .. '+' .. (level + 1) .. '.' .. ((m - 1) % FAN)] = table.concat(merged)
    level = level + 1
  end
  return n
end

local function part_field(name, i) return name .. '/#' .. i end
local function part(name, r, i)
  local raw = body(part_field(name, i))
  if not raw then return nil end
  local p = unpack_(raw)
  local g = r.g and r.g[tostring(i)]
  if g then p[2], p[3] = g[2], g[3] end
  return p
end

-- Folds a growing text into its base field.
local function fold(name, r, ref)
  local g = r.g and r.g[ref]
  if not g then return end
  local field = text_field(name, ref)
  B[field] = read_text(field, g[1])
  for _, f in ipairs(chunk_fields(field, g[1])) do B[f] = false end
  if ref == 'c' then
    r.k = r.k or {}
    r.k.content = { g[2], g[3] }
  else
    local p = part(name, r, tonumber(ref))
    B[part_field(name, ref)] = pack_(p)
  end
  r.g[ref] = nil
  r.g = some(r.g)
end
local function fold_all(name, r)
  while r.g do fold(name, r, (next(r.g))) end
end

local function content_size(r)
  local g = r.g and r.g.c
  if g then return g[2], g[3] end
  local k = r.k and r.k.content
  if k then return k[1], k[2] end
  return 0, 0
end

-- A row, and with it the conversation, grows by this many bytes.
local function resize(r, growth)
  r.b = (r.b or 0) + growth
  H.bytes = (H.bytes or 0) + growth
  HCHANGED = true
end

-- Unites ids into a row's links; true if one was new.
local function add_links(r, field, ids)
  local have, growth = {}, 0
  for _, id in ipairs(r[field] or {}) do have[id] = true end
  for _, id in ipairs(ids) do
    if not have[id] then
      r[field] = r[field] or {}
      table.insert(r[field], id)
      have[id], growth = true, growth + #id + LINK_BYTES
    end
  end
  if growth > 0 then resize(r, growth) end
  return growth > 0
end

local function link_bytes(r)
  local bytes = 0
  for _, id in ipairs(r.lr or {}) do bytes = bytes + #id + LINK_BYTES end
  for _, id in ipairs(r.la or {}) do bytes = bytes + #id + LINK_BYTES end
  return bytes
end

-- Removes all bodies of an item.
local function drop_bodies(name, r)
  if r.g then
    for ref, g in pairs(r.g) do
      for _, f in ipairs(chunk_fields(text_field(name, ref), g[1])) do B[f] = false end
      if ref == 'c' then B[name .. '/content'] = false end
    end
  end
  for field in pairs(r.k or {}) do B[name .. '/' .. field] = false end
  for i = 0, (r.n or 0) - 1 do
    B[part_field(name, i)] = false
    B[text_field(name, tostring(i))] = false
  end
end

-- ------------------------------------------------------------------ what callers get
-- A long answer is a list of pieces that the caller joins: MessagePack is written here by hand, so that no text is copied
-- again and again to make one string of many. Rows are handed out as they lie (a packed row is MessagePack already).
local function size_of(n)
  return string.char(math.floor(n / 16777216) % 256, math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256)
end
local function array(n) return '\221' .. size_of(n) end

-- A text of the bodies, whole, behind `lead`.
local function put_text(out, lead, field, chunks)
  local at, size = #out + 1, 0
  out[at] = lead
  local function put(f)
    local piece = body(f) or ''
    size = size + #piece
    out[#out + 1] = piece
  end
  put(field)
  for _, f in ipairs(chunk_fields(field, chunks)) do put(f) end
  out[at] = lead .. '\219' .. size_of(size)
end

-- The item as callers get it, behind `lead` (a head for these four elements, or more): name, row, bodies {field: text}
-- or false, parts {{skeleton, text or false}, …} or false.
local function put_view(out, lead, name, r, raw)
  lead = lead .. pack_(name) .. (raw or pack_(r))
  local function chunks_of(ref) return r.g and r.g[ref] and r.g[ref][1] or 0 end
  if string.sub(name, 1, 2) == 'v/' then
    put_text(out, lead .. '\129' .. pack_('content'), name, 0)
  else
    local fields = {}
    for field in pairs(r.k or {}) do if field ~= 'content' then fields[#fields + 1] = field end end
    if (r.k and r.k.content) or (r.g and r.g.c) then fields[#fields + 1] = 'content' end
    if #fields == 0 then out[#out + 1] = lead .. '\194' end
    if #fields > 0 then lead = lead .. string.char(128 + #fields) end
    for _, field in ipairs(fields) do
      put_text(out, lead .. pack_(field), name .. '/' .. field, field == 'content' and chunks_of('c') or 0)
      lead = ''
    end
  end
  out[#out + 1] = r.n and array(r.n) or '\194'
  for i = 0, (r.n or 0) - 1 do
    local p = part(name, r, i)
    lead = '\146' .. pack_(p[1])
    if p[2] >= 0 then
      put_text(out, lead, text_field(name, tostring(i)), chunks_of(tostring(i)))
    else
      out[#out + 1] = lead .. '\194'
    end
  end
end

-- ------------------------------------------------------------------ due, open, dirty
local DUE, OPENED, UNDEAD = {}, {}, {}
local AT -- due keys and settings, set by the script: uid, due, open, dead, stream_ms, autosave_ms, stale_ms…

local function is_open(r) return OPEN[r.st] ~= nil and not r.d end

local function waits(r)
  local kind
  for _, w in pairs(r.q or {}) do
    if w[2] == 'approval' then return 'approval' end
    kind = 'tool'
  end
  return kind
end

-- When a row is in flight: open, or complete with a tool pending. Keeps the header's count and the open index.
local function schedule_open(name, r)
  local deadline
  if not r.d then
    local wait = waits(r)
    if OPEN[r.st] then
      if r.rk and r.rk < 5 then wait = (r.f and r.f.state == 'approval-requested') and 'approval' or 'tool' end
      deadline = r.t + (wait == 'approval' and AT.stale_approval_ms or wait == 'tool' and AT.stale_tool_ms or AT.stale_ms)
    elseif r.st == 'complete' and wait then
      deadline = r.t + (wait == 'approval' and AT.stale_approval_ms or AT.stale_tool_ms)
    end
  end
  if (deadline ~= nil) ~= (r.o ~= nil) then
    H.open = (H.open or 0) + (deadline and 1 or -1)
    HCHANGED = true
  end
  if deadline ~= r.o then OPENED[name] = deadline or false end
  r.o = deadline
end

-- A row has a new version: it is dirty and due.
local function mark(name, r, at)
  if not r.y then
    r.y = NOW
    H.dirty = (H.dirty or 0) + 1
    HCHANGED = true
  end
  if r.x then
    r.x = nil
    H.dead = H.dead - 1
    UNDEAD[#UNDEAD + 1] = name
    HCHANGED = true
  end
  if not is_open(r) then r.i = nil end
  if not at then at = is_open(r) and not AT.pull and NOW + (r.i or AT.stream_ms) or NOW end
  if not DUE[name] or DUE[name] > at then DUE[name] = at end
  put_row(name, r)
end

-- Writes due and open entries of the open conversation; returns the earliest due time.
local function write_indexes()
  local least
  local add = {}
  for name, at in pairs(DUE) do
    add[#add + 1] = num(at)
    add[#add + 1] = AT.uid .. '/' .. name
    if not least or at < least then least = at end
  end
  for i = 1, #add, 1000 do redis.call('ZADD', AT.due, 'LT', unpack(add, i, math.min(i + 999, #add))) end
  for name, deadline in pairs(OPENED) do
    if deadline then redis.call('ZADD', AT.open, num(deadline), AT.uid .. '/' .. name)
    else redis.call('ZREM', AT.open, AT.uid .. '/' .. name) end
  end
  for _, name in ipairs(UNDEAD) do redis.call('HDEL', AT.dead, AT.uid .. '/' .. name) end
  DUE, OPENED, UNDEAD = {}, {}, {}
  return least
end

-- ------------------------------------------------------------------ the hint to live readers
-- "U version" and, where few rows changed, "U version before name name …": what the reader at `before` has to look at.
local HINT_NAMES = 8
local function hint(channel, uid, before)
  local names, n = {}, 0
  for name in pairs(RCHANGED) do
    local r = R[name]
    local kind = string.sub(name, 1, 2)
    if r and r.v and r.v > before and (kind == 'm/' or kind == 't/' or kind == 'a/' or kind == 'c/') then
      n = n + 1
      if n <= HINT_NAMES then names[n] = name end
    end
  end
  local text = uid .. ' ' .. num(H.last)
  if n > 0 and n <= HINT_NAMES then text = text .. ' ' .. num(before) .. ' ' .. table.concat(names, ' ') end
  redis.call('SPUBLISH', channel, text)
end
