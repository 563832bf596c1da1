-- KEYS: an index. ARGV: age in microseconds, then IDs. Removes those that were added longer ago: the
-- login that added a later one may still be storing its record.
local time = redis.call('TIME')
local before = time[1] * 1000000 + time[2] - ARGV[1]
for i = 2, #ARGV do
  local added_at = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if added_at and tonumber(added_at) <= before then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
