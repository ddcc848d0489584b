-- The merge rules: what one command does to the open conversation. The only merge engine there is; the store records.
-- Every function decides first and changes nothing unless it answers accepted (or touches an open item's clock).

local TERMINAL = { complete = true, interrupted = true, error = true }
local LIMIT -- {item, items, bytes, parts, links}, set by the script
local EXPECT_UNKNOWN = false -- blind: an append to an item the journal did not create cannot be judged

local function outcome(cmd, o, r, extra)
  local out = { k = cmd.k, id = cmd.id, o = o }
  if r then
    out.v, out.r, out.s = r.v, r.r, r.st
    if r.k and r.k.content or r.g and r.g.c then out.n = (content_size(r)) end
  end
  for key, value in pairs(extra or {}) do out[key] = value end
  return out
end

local function status_of(r) return r.sf or r.st end

-- Sets the status; a row the sweep had settled comes back to what it was first.
local function set_status(name, r, st)
  if r.sf then
    r.sf = nil
    if r.f and r.f.status_reason == 'stale' then r.f.status_reason = nil; r.f = some(r.f) end
  end
  r.st = st
  if TERMINAL[st] then fold_all(name, r) end
end

local function conversation_row()
  local c = row('c/')
  if c then return c end
  local v = stamp()
  c = { v = v, w = v, c = NOW, u = NOW, t = NOW, b = 0 }
  mark('c/', c, NOW)
  return c
end

local function change_conversation(c)
  c.v = stamp()
  c.w, c.u, c.t = c.v, NOW, NOW
  mark('c/', c, NOW)
end

-- ------------------------------------------------------------------ links
-- Of ids, what the row's links lack: their bytes, and how many links there would be with them.
local function lacks_links(r, field, ids)
  local have, bytes, count = {}, 0, #(r[field] or {})
  for _, id in ipairs(r[field] or {}) do have[id] = true end
  for _, id in ipairs(ids or {}) do
    if not have[id] then bytes, count, have[id] = bytes + #id + LINK_BYTES, count + 1, true end
  end
  return bytes, count
end

-- Where the link of something that names this message is kept: the message, or word left for it.
local function linking_row(message_id) return row('m/' .. message_id) or row('l/' .. message_id) or {} end

-- It names another message now: the word left for the first goes.
local function unlink_waiting(field, id, message_id)
  local name = 'l/' .. message_id
  local waiting = row(name)
  if not waiting then return end
  for i, linked in ipairs(waiting[field] or {}) do
    if linked == id then
      table.remove(waiting[field], i)
      resize(waiting, -(#id + LINK_BYTES))
      break
    end
  end
  waiting[field] = some(waiting[field])
  put_row(name, (waiting.lr or waiting.la) and waiting or false)
end

local function final_result(id)
  local t = row('t/' .. id)
  return t and not t.d and not OPEN[t.st] and (t.rk or 5) >= 5 and t or nil
end

-- Has this call of the message a final result? Results are named "message.call", or by the call (which another message
-- may repeat), or by anything, with the call as a field: those among the message's links are looked up once for all parts.
local function linked_calls(r)
  local calls = {}
  for _, id in ipairs(r.lr or {}) do
    local t = final_result(id)
    if t and t.f and t.f.tool_call_id then calls[t.f.tool_call_id] = true end
  end
  return calls
end
local function answered(message_id, calls, call)
  if calls[call] or final_result(message_id .. '.' .. call) then return true end
  local t = final_result(call)
  return t ~= nil and (not (t.f and t.f.message_id) or t.f.message_id == message_id)
end
local function is_waiting(p) return p[5] ~= nil and p[5] ~= '' end
-- calls: of linked_calls, where the part waits.
local function note_wait(message_id, r, i, p, calls)
  local key = tostring(i)
  if is_waiting(p) and not answered(message_id, calls, p[5]) then
    r.q = r.q or {}
    r.q[key] = { p[5], p[6] }
  elseif r.q then
    r.q[key] = nil
    r.q = some(r.q)
  end
end

-- A result or artifact names its message: link it there, or leave word until the message comes. For a reply still in
-- flight it is a sign of life, and a final result ends the wait for its call.
local function link_message(kind, id, message_id, call)
  local name = 'm/' .. message_id
  local m = row(name)
  local field = kind == 't' and 'lr' or 'la'
  if not m then
    local waiting = row('l/' .. message_id) or {}
    if add_links(waiting, field, { id }) then put_row('l/' .. message_id, waiting) end
    return
  end
  if m.d then return end
  if add_links(m, field, { id }) then
    m.v, m.u = stamp(), NOW
    mark(name, m)
  end
  if call and m.q then
    for i, w in pairs(m.q) do
      if w[1] == call or message_id .. '.' .. w[1] == id then m.q[i] = nil end
    end
    m.q = some(m.q)
  end
  m.t = NOW
  schedule_open(name, m)
  put_row(name, m)
end

-- ------------------------------------------------------------------ one part against what is stored
local function same_part(name, r, i, p, old)
  if old[1] ~= p[1] then return false end
  if not p[2] then return old[2] < 0 end
  return old[2] == p[3] and old[3] == #p[2] and text_of(name, r, tostring(i)) == p[2]
end
-- An older snapshot of a part: its state lies behind, or its text is shorter though it, or the save it came in, says
-- that it is unfinished (a text part need not carry a state).
local function older_part(p, old, open)
  if p[4] < old[4] then return true end
  return p[2] and (open or p[4] < 5) and old[2] >= 0 and p[3] < old[2]
end
local function set_part(name, r, i, p)
  local ref = tostring(i)
  fold(name, r, ref)
  local old = i < (r.n or 0) and part(name, r, i) or nil
  local before = old and (#old[1] + old[3]) or 0
  local bytes = p[2] and #p[2] or 0
  B[part_field(name, i)] = pack_({ p[1], p[2] and p[3] or -1, bytes, p[4], p[5], p[6] })
  if p[2] then B[text_field(name, ref)] = p[2]
  elseif old and old[2] >= 0 then B[text_field(name, ref)] = false end
  r.pb = (r.pb or 0) + #p[1] + bytes - before
  if i >= (r.n or 0) then r.n = i + 1 end
end

-- ------------------------------------------------------------------ limits
-- growth: bytes of the item; with one_more it is a new one; beside: bytes of other rows that grow with it.
local function over_limit(r, growth, one_more, beside)
  if one_more and (H.n or 0) + 1 > LIMIT.items then return 'too-many-items' end
  if growth > 0 and (r and r.b or 0) + growth > LIMIT.item then return 'item-too-large' end
  growth = growth + (beside or 0)
  if growth > 0 and (H.bytes or 0) + growth > LIMIT.bytes then return 'conversation-too-large' end
  return nil
end
-- What is there already stays, also beyond a limit (a base of Postgres may hold it).
local function over_parts(r, count)
  return count > math.max(LIMIT.parts, r and r.n or 0) and 'too-many-parts' or nil
end
local function over_links(bytes, count) return bytes > 0 and count > LIMIT.links and 'too-many-links' or nil end

-- ------------------------------------------------------------------ artifact versions
local function keep_version(name, r, id)
  if r.st ~= 'complete' or not (r.k and r.k.content) then return end
  local text = text_of(name, r, 'c')
  local hash = redis.sha1hex(text)
  if hash == r.hh then return end
  r.hh, r.hn = hash, (r.hn or 0) + 1
  local version_name = 'v/' .. id .. '/' .. num(r.hn)
  B[version_name] = text
  mark(version_name, { v = r.v, z = 0, hh = hash, c = NOW, b = #text }, NOW)
end

-- ------------------------------------------------------------------ put
local function apply_put(cmd)
  local name = cmd.k .. '/' .. cmd.id
  local r = row(name)
  local new = r == nil
  local status = not new and status_of(r) or nil
  local forced = cmd.rev ~= nil and (new or r.r == nil or cmd.rev > r.r)
  if cmd.rev and not new and r.r and cmd.rev < r.r then return outcome(cmd, 'stale-revision', r) end

  local rank = cmd.rank
  if rank == 4 and TERMINAL[cmd.st] then rank = 5 end
  if not new and not forced and not (cmd.rev and cmd.rev == r.r) and cmd.k ~= 'c' then
    if OPEN[cmd.st] then
      if TERMINAL[status] then return outcome(cmd, 'noop', r) end
      local sent = cmd.body and cmd.body.content
      if sent ~= nil and (sent and sent[2] or 0) < (content_size(r)) then return outcome(cmd, 'noop', r) end
    end
    if rank and rank < (r.rk or (r.f and r.f.state and 5) or -1) then return outcome(cmd, 'noop', r) end
    if cmd.parts ~= nil and OPEN[cmd.st] then
      if #(cmd.parts or {}) < (r.n or 0) then return outcome(cmd, 'noop', r) end
      for i, p in ipairs(cmd.parts or {}) do
        local old = i <= (r.n or 0) and part(name, r, i - 1)
        if old and older_part(p, old, true) then return outcome(cmd, 'noop', r) end
      end
    end
  end

  -- What differs.
  local fields, bodies, parts, surplus, growth = {}, {}, {}, 0, 0
  for field, value in pairs(cmd.row or {}) do
    local old = r and r.f and r.f[field]
    if field == 'status_reason' and r and r.sf and old == 'stale' then old = nil end -- the sweep's, not a client's
    if (value or nil) ~= (old or nil) then fields[field] = value end
  end
  for field, value in pairs(cmd.body or {}) do
    local size = r and r.k and r.k[field]
    local old_units, old_bytes = size and size[1] or nil, size and size[2] or 0
    if field == 'content' and r and r.g and r.g.c then old_units, old_bytes = content_size(r) end
    local same
    if not value then
      same = old_units == nil
    else
      same = old_units == value[2] and old_bytes == #value[1]
      if same then
        local stored
        if field == 'content' then stored = text_of(name, r, 'c') else stored = body(name .. '/' .. field) end
        same = stored == value[1]
      end
    end
    if not same then
      bodies[field] = value
      growth = growth + (value and #value[1] or 0) - old_bytes
    end
  end
  if cmd.parts ~= nil then
    local list = cmd.parts or {}
    local had = r and r.n or 0
    for i, p in ipairs(list) do
      local old = i <= had and part(name, r, i - 1) or nil
      if not old or not same_part(name, r, i - 1, p, old) then
        parts[i - 1] = p
        growth = growth + #p[1] + (p[2] and #p[2] or 0) - (old and (#old[1] + old[3]) or -PART_BYTES)
      end
    end
    for i = #list, had - 1 do
      local old = part(name, r, i)
      surplus = surplus + 1
      growth = growth - #old[1] - old[3] - PART_BYTES
    end
  end
  local null_parts = cmd.parts == false and not new and r.n ~= nil
  local empty_parts = cmd.parts and #cmd.parts == 0 and (new or r.n == nil)
  local base = r or (cmd.k == 'm' and row('l/' .. cmd.id)) or {} -- a new message finds links that waited for it
  local results, results_count = lacks_links(base, 'lr', cmd.results)
  local artifacts, artifacts_count = lacks_links(base, 'la', cmd.artifacts)
  local linked = results + artifacts > 0
  local to = cmd.st
  if cmd.k ~= 'c' then
    if new then
      to = to or (rank and rank < 5 and 'streaming') or 'complete'
    else
      if to == 'pending' and status == 'streaming' and not forced then to = 'streaming' end
      if not to and rank == 5 and OPEN[status] then to = 'complete' end
      if not to and rank and rank < 5 and forced then to = 'streaming' end
      to = to or status
    end
  end
  if cmd.k == 't' then
    -- A final state of an open result is a preliminary one (4): so the row tells it by itself, after adoption too.
    if rank == nil and fields.state == nil and not new then rank = r.rk or (r.f and r.f.state and 5) or nil end
    if rank and rank >= 4 then rank = OPEN[to] and 4 or nil end
  end
  local same = not new and not some(fields) and not some(bodies) and not some(parts) and surplus == 0
    and not null_parts and not empty_parts and not linked and (cmd.k == 'c' or to == status)
    and rank == r.rk
  if cmd.rev and not new and cmd.rev == r.r and not (same and r.sf) then
    return outcome(cmd, same and 'duplicate' or 'revision-conflict', r)
  end
  if same and not forced and not r.sf then
    if is_open(r) and cmd.k ~= 'c' then -- a sign of life
      r.t = NOW
      schedule_open(name, r)
      put_row(name, r)
    end
    return outcome(cmd, 'duplicate', r)
  end
  local link_field = cmd.k == 't' and 'lr' or cmd.k == 'a' and 'la'
  local message_id = link_field and fields.message_id
  if message_id == nil then message_id = r and r.f and r.f.message_id end
  local beside, beside_count = 0, 0
  if link_field and message_id then
    local there = linking_row(message_id)
    if not there.d then beside, beside_count = lacks_links(there, link_field, { cmd.id }) end
  end
  local over = over_parts(r, cmd.parts and #cmd.parts or 0)
    or over_links(results, results_count) or over_links(artifacts, artifacts_count) or over_links(beside, beside_count)
    or over_limit(r, growth + results + artifacts, new and cmd.k ~= 'c', beside)
  if over then return outcome(cmd, over, r) end

  -- Change it.
  local named = r and r.f and r.f.message_id
  if link_field and named and named ~= message_id then unlink_waiting(link_field, cmd.id, named) end
  if new and cmd.k == 'c' then
    r = conversation_row()
  elseif new then
    r = { z = 0, c = NOW, b = 0, f = cmd.k == 'm' and { role = 'assistant' } or nil }
    H.n = (H.n or 0) + 1
  end
  r.v = stamp()
  if new or some(bodies) or some(parts) or surplus > 0 or null_parts or empty_parts then r.w = r.v end
  r.u, r.t = NOW, NOW
  if new and cmd.k ~= 'c' then r.p = cmd.pos or string.format('%020.0f', r.v) end
  if cmd.rev then r.r = cmd.rev end
  if cmd.k == 't' then r.rk = rank end
  if some(fields) then
    r.f = r.f or {}
    for field, value in pairs(fields) do r.f[field] = value or nil end
    r.f = some(r.f)
  end
  if new and cmd.k == 't' and fields.tool_call_id == nil then
    r.f = r.f or {}
    r.f.tool_call_id = cmd.id
  end
  for field, value in pairs(bodies) do
    if field == 'content' then fold(name, r, 'c') end
    r.k = r.k or {}
    if value then
      B[name .. '/' .. field] = value[1]
      r.k[field] = { value[2], #value[1] }
    else
      B[name .. '/' .. field] = false
      r.k[field] = nil
    end
    r.k = some(r.k)
  end
  if cmd.k == 'm' and new then
    local waiting = row('l/' .. cmd.id)
    if waiting then
      r.lr, r.la, r.b = waiting.lr, waiting.la, waiting.b
      put_row('l/' .. cmd.id, false)
    end
    H.mp = r.v
  end
  add_links(r, 'lr', cmd.results or {})
  add_links(r, 'la', cmd.artifacts or {})
  if cmd.parts ~= nil then
    local count = cmd.parts and #cmd.parts or 0
    for i = count, (r.n or 0) - 1 do
      fold(name, r, tostring(i))
      local old = part(name, r, i)
      r.pb = r.pb - #old[1] - old[3]
      B[part_field(name, i)] = false
      B[text_field(name, tostring(i))] = false
      if r.q then r.q[tostring(i)] = nil; r.q = some(r.q) end
    end
    local calls
    for i = 0, count - 1 do
      local p = cmd.parts[i + 1]
      if parts[i] then set_part(name, r, i, p) end
      if is_waiting(p) then calls = calls or linked_calls(r) end
      note_wait(cmd.id, r, i, p, calls)
    end
    r.n = cmd.parts and count or nil
    if not r.n then r.pb = nil end
  end
  resize(r, growth)
  if cmd.k ~= 'c' then
    if new then r.st = to end
    set_status(name, r, to)
    local reason = cmd.row and cmd.row.status_reason
    if reason then r.f = r.f or {}; r.f.status_reason = reason end
  end
  if cmd.k == 'a' then keep_version(name, r, cmd.id) end
  if cmd.k ~= 'c' then schedule_open(name, r) end
  mark(name, r)
  if cmd.k ~= 'c' then
    local c = conversation_row()
    if cmd.k == 'm' and new then
      c.lm = NOW
      change_conversation(c)
    end
  end
  if (cmd.k == 't' or cmd.k == 'a') and r.f and r.f.message_id then
    local final = cmd.k == 't' and final_result(cmd.id)
    link_message(cmd.k, cmd.id, r.f.message_id, final and (r.f.tool_call_id or cmd.id))
  end
  return outcome(cmd, 'accepted', r, { c = new or nil })
end

-- ------------------------------------------------------------------ append, set a part
-- Status and revision alongside a step; answers what to do before the step itself.
local function step_guard(cmd, r)
  if cmd.rev and r.r and cmd.rev < r.r then return outcome(cmd, 'stale-revision', r) end
  return nil
end
local function finish_step(cmd, name, r, changed)
  local status = status_of(r)
  local to = cmd.st or status
  local forced = cmd.rev ~= nil and (r.r == nil or cmd.rev > r.r)
  if OPEN[to] and TERMINAL[status] and not forced then to = status end
  if to == 'pending' and status == 'streaming' and not forced then to = 'streaming' end
  if changed and status == 'pending' and to == 'pending' then to = 'streaming' end
  local reason = cmd.reason and (not r.f or r.f.status_reason ~= cmd.reason) or false
  local moved = to ~= status or r.sf ~= nil or forced or reason
  if not changed and not moved then
    if is_open(r) then
      r.t = NOW
      schedule_open(name, r)
      put_row(name, r)
    end
    return false
  end
  r.v = stamp()
  if changed == 'part' then r.w = r.v end
  r.u, r.t = NOW, NOW
  if cmd.rev then r.r = cmd.rev end
  set_status(name, r, to)
  if cmd.reason then r.f = r.f or {}; r.f.status_reason = cmd.reason end
  if cmd.k == 'a' then keep_version(name, r, cmd.id) end
  schedule_open(name, r)
  mark(name, r)
  return true
end

local function apply_append(cmd)
  local name = cmd.k .. '/' .. cmd.id
  local r = row(name)
  if not r then return outcome(cmd, EXPECT_UNKNOWN and 'unavailable' or 'not-found') end
  local ref, length, bytes = 'c', nil, nil
  if cmd.part then
    ref = tostring(cmd.part)
    local p = cmd.part < (r.n or 0) and part(name, r, cmd.part) or nil
    if not p then return outcome(cmd, 'part-gap', r, { n = r.n or 0 }) end
    if p[2] < 0 then return outcome(cmd, 'not-text', r) end
    length, bytes = p[2], p[3]
  else
    length, bytes = content_size(r)
  end
  local guard = step_guard(cmd, r)
  if guard then guard.n = length; return guard end
  local reopens = cmd.rev and r.r ~= cmd.rev and OPEN[cmd.st]
  if cmd.offset > length then
    local finished = TERMINAL[status_of(r)] and not reopens
    return outcome(cmd, finished and 'terminal' or 'append-gap', r, { n = length })
  end

  local text, added = cmd.text, cmd.units
  if cmd.offset < length then
    local stored = text_of(name, r, ref)
    local from = split_at(stored, cmd.offset, length)
    if not from then return outcome(cmd, 'surrogate-split', r, { n = length }) end
    local overlap = math.min(length - cmd.offset, cmd.units)
    local skip = prefix_bytes(text, overlap)
    if not skip or string.sub(stored, from + 1, from + skip) ~= string.sub(text, 1, skip) then
      return outcome(cmd, 'append-mismatch', r, { n = length })
    end
    text, added = string.sub(text, skip + 1), cmd.units - overlap
  end
  if added > 0 and TERMINAL[status_of(r)] and not reopens then
    return outcome(cmd, 'terminal', r, { n = length })
  end
  local over = over_limit(r, #text)
  if over then return outcome(cmd, over, r, { n = length }) end
  if added > 0 then
    r.g = r.g or {}
    if not r.g[ref] then
      local growing = 0
      for _ in pairs(r.g) do growing = growing + 1 end
      if growing >= 4 then fold_all(name, r); r.g = {} end
      r.g[ref] = { 0, length, bytes }
    end
    local g = r.g[ref]
    g[1] = push_chunk(text_field(name, ref), g[1], text)
    g[2], g[3] = length + added, bytes + #text
    if ref ~= 'c' then r.pb = (r.pb or 0) + #text end
    resize(r, #text)
  end
  local changed = finish_step(cmd, name, r, added > 0 and 'append' or nil)
  return outcome(cmd, changed and 'accepted' or 'duplicate', r, { n = length + added })
end

local function apply_part(cmd)
  local name = cmd.k .. '/' .. cmd.id
  local r = row(name)
  if not r then return outcome(cmd, EXPECT_UNKNOWN and 'unavailable' or 'not-found') end
  local guard = step_guard(cmd, r)
  if guard then return guard end
  local count = r.n or 0
  if cmd.index > count then return outcome(cmd, 'part-gap', r, { n = count }) end
  local forced = cmd.rev ~= nil and (r.r == nil or cmd.rev > r.r)
  if not forced and OPEN[cmd.st] and TERMINAL[status_of(r)] then return outcome(cmd, 'noop', r) end
  local p = cmd.part
  local old = cmd.index < count and part(name, r, cmd.index) or nil
  local same = old and same_part(name, r, cmd.index, p, old)
  -- A step under the revision that stands may be the one that set it, late: what was appended since stays.
  local late = OPEN[cmd.st] or cmd.rev ~= nil
  if old and not forced and not same and older_part(p, old, late) then return outcome(cmd, 'noop', r) end
  if not same then
    local growth = #p[1] + (p[2] and #p[2] or 0) - (old and (#old[1] + old[3]) or -PART_BYTES)
    local over = over_parts(r, cmd.index + 1) or over_limit(r, growth)
    if over then return outcome(cmd, over, r) end
    set_part(name, r, cmd.index, p)
    resize(r, growth)
    note_wait(cmd.id, r, cmd.index, p, is_waiting(p) and linked_calls(r))
  end
  local changed = finish_step(cmd, name, r, not same and 'part' or nil)
  return outcome(cmd, changed and 'accepted' or 'duplicate', r)
end

-- ------------------------------------------------------------------ delete
local function delete_item(cmd)
  local name = cmd.k .. '/' .. cmd.id
  local r = row(name)
  if r and r.d then return outcome(cmd, 'duplicate', r) end
  if not r then
    -- A tombstone where nothing was makes no conversation: it stays unknown to readers until something is saved.
    -- A full conversation has room for some: what a client deletes must not come back when there is room again.
    if (H.n or 0) >= LIMIT.items + math.ceil(LIMIT.items / 10) then return outcome(cmd, 'too-many-items') end
    r = { z = 0, c = NOW, b = 0, st = 'complete' }
    r.p = string.format('%020.0f', math.max(H.last + 1, NOW_US))
    if cmd.k == 'm' then r.f = { role = 'assistant' } end
    H.n = (H.n or 0) + 1
  end
  drop_bodies(name, r)
  resize(r, link_bytes(r) - (r.b or 0))
  -- What readers need to keep the tree together stays; titles and the like go with the content.
  local f = r.f or {}
  r.f = some({ role = f.role, parent_id = f.parent_id, message_id = f.message_id })
  local waiting = cmd.k == 'm' and row('l/' .. cmd.id)
  if waiting then
    resize(waiting, -(waiting.b or 0))
    put_row('l/' .. cmd.id, false)
  end
  r.k, r.g, r.n, r.pb, r.q = nil, nil, nil, nil, nil
  r.v = stamp()
  r.w, r.u, r.t, r.d = r.v, NOW, NOW, NOW
  schedule_open(name, r)
  mark(name, r, NOW)
  return outcome(cmd, 'accepted', r)
end

-- The conversation's tombstone: its items' rows and bodies go, with their due entries and dead letters.
local function delete_conversation(cmd)
  local c = row('c/')
  if c and c.d then return outcome(cmd, 'duplicate', c) end
  c = conversation_row()
  local due, open = {}, {}
  for _, name in ipairs(redis.call('HKEYS', ROWS)) do
    if name ~= 'h' and name ~= 'c/' then
      R[name], RCHANGED[name] = false, true
      DUE[name], OPENED[name] = nil, nil
      due[#due + 1] = AT.uid .. '/' .. name
    end
  end
  for name in pairs(R) do
    if name ~= 'c/' then R[name], RCHANGED[name], DUE[name], OPENED[name] = false, true, nil, nil end
  end
  for i = 1, #due, 1000 do
    local last = math.min(i + 999, #due)
    AT.later[#AT.later + 1] = { 'ZREM', AT.due, unpack(due, i, last) }
    AT.later[#AT.later + 1] = { 'ZREM', AT.open, unpack(due, i, last) }
    AT.later[#AT.later + 1] = { 'HDEL', AT.dead, unpack(due, i, last) }
  end
  AT.later[#AT.later + 1] = { 'UNLINK', BODIES }
  for field in pairs(B) do B[field] = nil end
  c.k, c.b, c.f = nil, 0, nil
  c.d = NOW
  change_conversation(c)
  H.n, H.bytes, H.open, H.dead, H.dirty = 0, 0, 0, 0, 1
  return outcome(cmd, 'accepted', c)
end

local function apply(cmd)
  if cmd.op == 'delete' then
    if cmd.k == 'c' then return delete_conversation(cmd) end
    return delete_item(cmd)
  end
  local r = row(cmd.k .. '/' .. cmd.id)
  if r and r.d then return outcome(cmd, 'gone', r) end
  if cmd.op == 'put' then return apply_put(cmd) end
  if cmd.op == 'append' then return apply_append(cmd) end
  return apply_part(cmd)
end
