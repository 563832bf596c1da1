-- include integers.lua
-- include values.lua
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

local function delete(key)
  local head, base = read_head(key)
  if not head then return base end
  local reply = redis.pcall('DEL', key)
  if reply == 0 then return 0 end
  return reply == 1 and string.sub(head, 1, (base or 0) + 26) or reply
end

-- Publishes a "changed" message (msgpack). In a cluster, where the key has a hash tag, the channel is
-- sharded if the server supports it: REDIS_VERSION_NUM exists since Redis 7.0, as SPUBLISH does. A
-- save does not fail if publishing is denied.
local function publish_change(key, version, id)
  local is_cluster = string.sub(key, -30, -30) == '}'
  local name = string.sub(key, is_cluster and -34 or -32)
  local channel = string.sub(key, 1, -#name - 3) .. 'c:' .. name
  local message = '\149\1\167changed\196\16' .. id .. '\207' .. version .. '\160'
  redis.pcall(is_cluster and redis.REDIS_VERSION_NUM and 'SPUBLISH' or 'PUBLISH', channel, message)
end

-- Executes one step for each key from KEYS[first] on and appends their results. A step's error is its
-- result, so that a damaged key does not affect the other steps (law S13).
local function run_steps(results, first)
  local at = 1
  for i = first, #KEYS do
    local verb, key = ARGV[at], KEYS[i]
    if verb == 's' then
      results[i] = save(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], false)
      if results[i] == 1 then
        publish_change(key, string.sub(ARGV[at + 2], 3, 10), ARGV[at + 4])
      end
      at = at + 5
    elseif verb == 'b' then
      results[i] = save(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], true)
      at = at + 4
    elseif verb == 't' then
      results[i] = touch(key, ARGV[at + 1])
      at = at + 2
    elseif verb == 'c' then
      results[i] = create(key, ARGV[at + 1], ARGV[at + 2])
      at = at + 3
    else
      results[i] = delete(key)
      at = at + 1
    end
  end
  return results
end
