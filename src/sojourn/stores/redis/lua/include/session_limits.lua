-- include integers.lua
-- include values.lua
-- Characters to hexadecimal digits, each computed at its first use.
local HEX = setmetatable({}, {
  __index = function(digits, character)
    local pair = string.format('%02x', string.byte(character))
    digits[character] = pair
    return pair
  end,
})
local function hex(text) return (string.gsub(text, '.', HEX)) end

local function field(head, base, position)
  return to_number(string.sub(head, base + position + 1, base + position + 8))
end
local function digest(head, n)
  return string.sub(head, 2 + DIGEST_BYTES * (n - 1), 1 + DIGEST_BYTES * n)
end
local function has_name(head, base, wanted)
  for n = 1, (base - 1) / DIGEST_BYTES do
    if digest(head, n) == wanted then return true end
  end
  return false
end

-- Returns the members of an index to examine for a limit: all if they are few; otherwise those added
-- first and random others, so that the time does not grow with the index. The second result maps
-- those that may be evicted: of many members, random ones are not the oldest.
local function members_to_examine(index, size, order)
  if size <= EXAMINED_MEMBERS then return redis.call('ZRANGE', index, 0, -1), nil end
  local members, known = redis.call('ZRANGE', index, 0, EXAMINED_OLDEST - 1), {}
  for _, member in ipairs(members) do known[member] = true end
  local evictable = {}
  for member in pairs(known) do evictable[member] = true end
  for _, member in ipairs(redis.call('ZRANDMEMBER', index, EXAMINED_MEMBERS - EXAMINED_OLDEST)) do
    if not known[member] then
      members[#members + 1] = member
      evictable[member] = order == SEEN_AT
    end
  end
  return members, evictable
end

-- Examines the sessions of an index.
-- name: its digest. id: a session that does not count. all_cutoff: of invalidate_all, or false.
-- limit: {max_sessions, order, now}; order is the position of the field that orders evictions, 0 to
-- reject instead. Without a limit a sample is examined for stale entries only.
-- Returns a table: stale {index, member} entries; ended and evicted sessions {key, member, order};
-- excess, the number of sessions above the limit.
local function examine(index, name, id, all_cutoff, record_prefix, limit)
  local found = {stale = {}, ended = {}, evicted = {}, excess = 0}
  local size = redis.call('ZCARD', index)
  local others, members, evictable = size, {}, nil
  if limit and redis.call('ZSCORE', index, id) then others = size - 1 end
  if limit and others >= limit.max_sessions then
    members, evictable = members_to_examine(index, size, limit.order)
  else
    limit = nil
    if size > CLEANING_SAMPLE then members = redis.call('ZRANDMEMBER', index, CLEANING_SAMPLE) end
  end
  local live = {}
  for _, member in ipairs(members) do
    local key = record_prefix .. hex(member)
    local head, base = read_head(key)
    if member == id then
    elseif not head then  -- a key of another type
      others = others - 1
    elseif not base or not has_name(head, base, name)
      or all_cutoff and field(head, base, CREATED_AT) < to_number(all_cutoff) then
      found.stale[#found.stale + 1] = {index, member}
      others = others - 1
    elseif limit then
      if string.byte(head, base + 1) % 128 > FORMAT then
        others = others - 1
      else
        local session = {key, member, field(head, base, math.max(limit.order, SEEN_AT))}
        local idle_until = field(head, base, SEEN_AT) + field(head, base, IDLE_TIMEOUT)
        if limit.now >= math.min(idle_until, field(head, base, ABSOLUTE_AT)) then
          found.ended[#found.ended + 1] = session
          others = others - 1
        elseif not evictable or evictable[member] then
          live[#live + 1] = session
        end
      end
    end
  end
  if not limit then return found end
  found.excess = math.max(others + 1 - limit.max_sessions, 0)
  table.sort(live, function(a, b) return a[3] < b[3] or a[3] == b[3] and a[1] < b[1] end)
  local most = #live
  -- The idlest half of a sample, since the others may be busier than those outside of it.
  if evictable and limit.order == SEEN_AT then most = math.ceil(most / 2) end
  for n = 1, math.min(found.excess, most) do found.evicted[n] = live[n] end
  return found
end

-- Removes a session from the indexes that its head names, except those that another head names.
local function unlist(head, member, index_prefix, except, except_base)
  for n = 1, string.byte(head) - NO_NAMES do
    if not except or not has_name(except, except_base, digest(head, n)) then
      redis.pcall('ZREM', index_prefix .. hex(digest(head, n)), member)
    end
  end
end

-- Removes what was found. Returns the number of sessions that remain above the limit, then the IDs of
-- the evicted ones.
local function remove_found(found, index_prefix)
  for _, entry in ipairs(found.stale) do redis.call('ZREM', entry[1], entry[2]) end
  local result = {found.excess - #found.evicted}
  for _, session in ipairs(found.evicted) do result[#result + 1] = session[2] end
  for _, sessions in ipairs({found.ended, found.evicted}) do
    for _, session in ipairs(sessions) do
      unlist(read_head(session[1]), session[2], index_prefix)
      redis.call('DEL', session[1])
    end
  end
  return result
end
