-- Adds an ID to an index. Returns 1 or 0 for whether it is new there, then members to check: all with
-- sample 0, otherwise as many random ones if the index has more.
local function add_to_index(index, id, needed, sample)
  local time = redis.call('TIME')
  local is_new = redis.call('ZADD', index, time[1] .. string.format('%06d', time[2]), id)
  if redis.call('PTTL', index) < tonumber(needed) then redis.call('PEXPIRE', index, needed) end
  local result, members = {is_new}, {}
  sample = tonumber(sample)
  if sample == 0 then
    members = redis.call('ZRANGE', index, 0, -1)
  elseif redis.call('ZCARD', index) > sample then
    members = redis.call('ZRANDMEMBER', index, sample)
  end
  for _, member in ipairs(members) do
    if member ~= id then result[#result + 1] = member end
  end
  return result
end
