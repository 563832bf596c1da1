-- Moves seen_at forward, never backward. Returns 1, or 0 if there is no record.
local function touch(key, seen_at)
  local head, base = read_head(key)
  if not head then return base end
  if not base then return 0 end
  if to_number(seen_at) > to_number(string.sub(head, base + 11, base + 18)) then
    local reply = redis.pcall('SETRANGE', key, base + 10, seen_at)
    if type(reply) ~= 'number' then return reply end
    local remaining = to_number(string.sub(head, base + 35, base + 42)) - to_number(seen_at)
    local idle = to_number(string.sub(head, base + 43, base + 50))
    local px = math.max(math.min(remaining, idle), 0) + TTL_MARGIN
    redis.call('PEXPIRE', key, string.format('%.0f', px))
  end
  return 1
end
