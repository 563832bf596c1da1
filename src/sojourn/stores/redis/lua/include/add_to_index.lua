-- Adds an ID to an index. Returns 1 or 0 for whether it is new there, the number of members, then
-- members to examine: if there are more than max_sessions (0: no limit), all or as many as
-- session_limits.lua examines; otherwise random ones if the index has many.
local function add_to_index(index, id, needed, max_sessions)
  local time = redis.call('TIME')
  local is_new = redis.call('ZADD', index, time[1] .. string.format('%06d', time[2]), id)
  if redis.call('PTTL', index) < tonumber(needed) then redis.call('PEXPIRE', index, needed) end
  local size, limit = redis.call('ZCARD', index), tonumber(max_sessions)
  local result = {is_new, size}
  local known = {[id] = true}
  local function append(members)
    for _, member in ipairs(members) do
      if not known[member] then result[#result + 1] = member end
      known[member] = true
    end
  end
  if limit > 0 and size > limit and size <= EXAMINED_MEMBERS then
    append(redis.call('ZRANGE', index, 0, -1))
  elseif limit > 0 and size > limit then
    append(redis.call('ZRANGE', index, 0, EXAMINED_OLDEST - 1))
    append(redis.call('ZRANDMEMBER', index, EXAMINED_MEMBERS - EXAMINED_OLDEST))
  elseif size > CLEANING_SAMPLE then
    append(redis.call('ZRANDMEMBER', index, CLEANING_SAMPLE))
  end
  return result
end
