#!lua flags=no-writes
-- Purpose: one conversation, or some of it, as one snapshot with its version.
-- KEYS 1 meta, 2 epoch, 3 rows, 4 bodies, 5 journal, 6 image rows, 7 image bodies
-- ARGV 1 request, a MessagePack map: mode rows (headers only) | full | names (names [..]) | since (the
--        conversation's row and what is newer than since),
--        trust, at (version the names were chosen at; 0 any), most (bytes: full answers rows only above it; 0 no bound), of (partitions, as save)
-- Returns pieces of a MessagePack array {head, items}. head: s uninit | cold (p epoch) | suspect | moved | ok, e buffer epoch,
--      v version, h header, now ms, partial (blind), suspect (with trust), whole (bodies included); items: {name, row, bodies or false, parts or
--      false}, without bodies {name, row}
-- Prevents: a reader that mixes two versions of a conversation.
local req = cmsgpack.unpack(ARGV[1])
clock(0)
local meta = redis.call('HMGET', KEYS[1], 'e', 'n')
local function refuse(head) return { '\146' .. pack_(head) .. '\144' } end
if not meta[1] or meta[2] ~= req.of then return refuse({ s = 'uninit' }) end
local partial = redis.call('EXISTS', KEYS[5]) == 1
local rows_key, bodies_key = KEYS[3], KEYS[4]
if partial then rows_key, bodies_key = KEYS[6], KEYS[7] end
if not use(rows_key, bodies_key) then
  return refuse({ s = 'cold', e = meta[1], p = tonumber(redis.call('GET', KEYS[2]) or '0') })
end
local suspect = not partial and H.be ~= meta[1]
if suspect and not req.trust then return refuse({ s = 'suspect', e = meta[1] }) end
if req.at > 0 and req.at ~= H.last then return refuse({ s = 'moved', e = meta[1] }) end
local items, count, whole = { '' }, 0, true
local function show(name, r, raw)
  put_view(items, '\148', name, r, raw)
  count = count + 1
end
if req.mode == 'names' then
  for i, name in ipairs(req.names) do
    local r = row(name)
    if r then show(name, r) end
  end
else
  whole = req.mode ~= 'rows' and (req.most == 0 or (H.bytes or 0) <= req.most)
  local flat = redis.call('HGETALL', ROWS)
  for i = 1, #flat, 2 do
    local name = flat[i]
    local kind = string.sub(name, 1, 2)
    if kind == 'm/' or kind == 't/' or kind == 'a/' or kind == 'c/' then
      if req.mode == 'since' then
        local r = unpack_(flat[i + 1])
        if kind == 'c/' or r.v > req.since then show(name, r, flat[i + 1]) end
      elseif whole then
        show(name, unpack_(flat[i + 1]), flat[i + 1])
      else
        items[#items + 1] = '\146' .. pack_(name) .. flat[i + 1]
        count = count + 1
      end
    end
  end
end
local head = pack_({ s = 'ok', e = meta[1], v = H.last, h = H, now = NOW, partial = partial, suspect = suspect, whole = whole })
items[1] = '\146' .. head .. array(count)
return items
