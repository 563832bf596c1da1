-- Returns the first bytes of a value and the position (from 0) of its record; the position is nil if
-- the value is damaged. If the key holds another type: nil and the error.
local function read_head(key)
  local head = redis.pcall('GETRANGE', key, 0, DIGEST_BYTES * MAX_NAMES + 50)
  if type(head) ~= 'string' then return nil, head end
  local names = (string.byte(head) or 0) - NO_NAMES
  if names < 0 or names > MAX_NAMES then return head, nil end
  local base = 1 + DIGEST_BYTES * names
  if #head < base + 50 then return head, nil end
  return head, base
end

-- Replaces the record; with is_login the name digests too. Returns 1 (with is_login the previous head
-- in a table), 0 if there is no record, or the stored value if its version differs.
local function save(key, version, value, px, is_login)
  local head, base = read_head(key)
  if not head then return base end
  if head == '' and redis.call('EXISTS', key) == 0 then return 0 end
  if not base or string.sub(head, base + 3, base + 10) ~= version then
    return redis.call('GET', key)
  end
  local prefix = string.sub(head, 1, base)
  if is_login then
    local own = 1 + DIGEST_BYTES * (string.byte(value) - NO_NAMES)
    prefix, value = string.sub(value, 1, own), string.sub(value, own + 1)
  end
  local seen_at = string.sub(head, base + 11, base + 18)
  if to_number(seen_at) > to_number(string.sub(value, 11, 18)) then
    value = string.sub(value, 1, 10) .. seen_at .. string.sub(value, 19)
  end
  local reply = redis.pcall('SET', key, prefix .. value, 'PX', px)
  if not reply.ok then return reply end
  return is_login and {string.sub(head, 1, base + 26)} or 1
end
