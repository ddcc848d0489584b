#!lua flags=no-writes
-- Purpose: whole rows for a flush, from several conversations of one partition. Nothing is claimed or moved.
-- KEYS rows and bodies of each conversation, in pairs
-- ARGV 1 bytes at most (at least one row is given), then pairs: number of the conversation (1 …), item's name (K/I)
-- Returns pieces of a MessagePack array, one entry a pair, in order, shorter where the bytes ran out:
--      {version, view, owner, id} | {0} (gone or clean: its due entry is stale) | {-1} (journal not replayed yet: wait)
-- Prevents: a row flushed half old, half new.
clock(0)
local budget, out, count, at = tonumber(ARGV[1]), { '' }, 0, 0
for i = 2, #ARGV, 2 do
  local which = tonumber(ARGV[i])
  if which ~= at then
    use(KEYS[which * 2 - 1], KEYS[which * 2])
    at = which
  end
  local name = ARGV[i + 1]
  local r = H and row(name)
  if H and H.bl then
    out[#out + 1] = '\145\255'
  elseif not r or not r.y or r.x then
    out[#out + 1] = '\145\0'
  else
    if budget <= 0 and count > 0 then break end
    budget = budget - (r.b or 0) - 200
    put_view(out, '\148' .. pack_(r.v) .. '\148', name, r)
    out[#out + 1] = pack_(H.owner) .. pack_(H.id)
  end
  count = count + 1
end
out[1] = array(count)
return out
