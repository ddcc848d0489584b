#!lua flags=no-writes
-- Purpose: what a live reader lacks of one conversation: rows above the version it has, of known growing texts only
--      what was appended, and which of the rows it awaits are committed meanwhile.
-- KEYS 1 meta, 2 epoch, 3 rows, 4 bodies, 5 journal
-- ARGV 1 request, a MessagePack map: since, at (the version up to which names tells what changed), names [..] or false
--        (look at every row), known {name -> {version, {ref -> bytes}}}, awaited {name -> version},
--        census (tell every row that is not committed), most (bytes; at least one row is given), e (the buffer epoch
--        that known belongs to), of (partitions, as save)
-- Returns pieces of a MessagePack array {head, items}. head: s uninit | blind | cold (p epoch) | suspect | ok, e buffer epoch,
--      v version reached, more (rows above v are left), ph purge horizon, gone (deleted), stored [name ..],
--      unstored [name, version, ..] (census); items, by version: {name, row, bodies, parts, [ref, tail, ..] or false}
-- Prevents: a reader that mixes two versions, and one that gets a long text again with each word.
-- Names are a shortcut: where the conversation is beyond `at`, every row is looked at.
local req = cmsgpack.unpack(ARGV[1])
local e, of = unpack(redis.call('HMGET', KEYS[1], 'e', 'n'))
local function refuse(head) return { '\146' .. pack_(head) .. '\144' } end
if not e or of ~= req.of then return refuse({ s = 'uninit' }) end
if redis.call('EXISTS', KEYS[5]) == 1 then return refuse({ s = 'blind', e = e }) end
if not use(KEYS[3], KEYS[4]) then
  return refuse({ s = 'cold', e = e, p = tonumber(redis.call('GET', KEYS[2]) or '0') })
end
if H.be ~= e or H.bl then return refuse({ s = 'suspect', e = e }) end

local found, unstored = {}, {}
local function look(name, r)
  if r.v > req.since then found[#found + 1] = { name, r } end
end
if not req.names or req.census or H.last ~= req.at then
  local flat = redis.call('HGETALL', ROWS)
  for i = 1, #flat, 2 do
    local kind = string.sub(flat[i], 1, 2)
    if kind == 'm/' or kind == 't/' or kind == 'a/' or kind == 'c/' then
      local r = unpack_(flat[i + 1])
      R[flat[i]] = r
      look(flat[i], r)
      if req.census and (r.z or 0) < r.v then
        unstored[#unstored + 1] = flat[i]
        unstored[#unstored + 1] = r.v
      end
    end
  end
else
  for _, name in ipairs(req.names) do
    local r = row(name)
    if r then look(name, r) end
  end
end
table.sort(found, function(a, b) return a[2].v < b[2].v end)

-- Bytes of a growing text that lie beyond `from`, taken from its last chunks; nil where it is shorter than that.
local function tail_of(name, r, ref, from)
  local total
  if ref == 'c' then
    local _, bytes = content_size(r)
    total = bytes
  else
    local p = tonumber(ref) < (r.n or 0) and part(name, r, tonumber(ref))
    if not p or p[2] < 0 then return nil end
    total = p[3]
  end
  local need = total - from
  if need < 0 then return nil end
  if need == 0 then return '' end
  local g = r.g and r.g[ref]
  local field = text_field(name, ref)
  local fields = chunk_fields(field, g and g[1] or 0)
  table.insert(fields, 1, field)
  local pieces, have = {}, 0
  for i = #fields, 1, -1 do
    local piece = body(fields[i]) or ''
    table.insert(pieces, 1, piece)
    have = have + #piece
    if have >= need then break end
  end
  if have < need then return nil end
  return string.sub(table.concat(pieces), have - need + 1)
end

local function tails_of(name, r)
  local k = req.e == e and req.known[name]
  if not k or (r.w or r.v) > k[1] or r.d then return nil end
  local tails, size = {}, 0
  for ref, bytes in pairs(k[2]) do
    local tail = tail_of(name, r, ref, bytes)
    if not tail then return nil end
    if tail ~= '' then
      tails[#tails + 1] = ref
      tails[#tails + 1] = tail
      size = size + PART_BYTES + #tail
    end
  end
  return tails, size
end

local items, count, budget, v, more = { '' }, 0, req.most, H.last, false
for i, entry in ipairs(found) do
  local name, r = entry[1], entry[2]
  if budget <= 0 and i > 1 and r.v > found[i - 1][2].v then
    v, more = found[i - 1][2].v, true
    break
  end
  local tails, size = tails_of(name, r)
  if tails then
    budget = budget - size - 200
    items[#items + 1] = '\149' .. pack_(name) .. pack_(r) .. pack_(false) .. pack_(false) .. pack_(tails)
  else
    budget = budget - (r.b or 0) - 200
    put_view(items, '\149', name, r)
    items[#items + 1] = '\194'
  end
  count = count + 1
end
local stored = {}
for name, version in pairs(req.awaited) do
  local r = row(name)
  if r and r.v == version and (r.z or 0) >= version then stored[#stored + 1] = name end
end
local c = row('c/')
local gone = c ~= nil and c.d ~= nil
local head = pack_({
  s = 'ok', e = e, v = v, more = more, ph = H.ph or 0, gone = gone, stored = stored, unstored = unstored,
})
items[1] = '\146' .. head .. array(count)
return items
