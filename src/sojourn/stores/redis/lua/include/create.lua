-- include values.lua
-- Returns 1; or, if the key is taken, the head of its value up to created_at.
local function create(key, value, px)
  local reply = redis.pcall('SET', key, value, 'NX', 'PX', px)
  if not reply then
    local head, base = read_head(key)
    if not head then return base end
    return string.sub(head, 1, (base or 0) + 26)
  end
  return reply.ok and 1 or reply
end
