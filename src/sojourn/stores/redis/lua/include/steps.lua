-- include integers.lua
-- include values.lua
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
-- result, so that a damaged key does not affect the other steps (law S13). Functions that a save does
-- not call are defined where they are called: defining them took an eighth of the script's time.
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
-- include touch.lua
      results[i] = touch(key, ARGV[at + 1])
      at = at + 2
    elseif verb == 'c' then
-- include create.lua
      results[i] = create(key, ARGV[at + 1], ARGV[at + 2])
      at = at + 3
    else
-- include delete.lua
      results[i] = delete(key)
      at = at + 1
    end
  end
  return results
end
