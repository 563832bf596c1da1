-- Removes a record. Returns the head of the removed value, or 0 if there was none.
local function delete(key)
  local head, base = read_head(key)
  if not head then return base end
  local reply = redis.pcall('DEL', key)
  if reply == 0 then return 0 end
  return reply == 1 and string.sub(head, 1, (base or 0) + 26) or reply
end
