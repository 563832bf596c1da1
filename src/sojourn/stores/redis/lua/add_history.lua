-- Adds entries to the history, and removes those of the oldest ones whose lifetime is over.
-- KEYS: the stream. ARGV: lifetime (milliseconds), then for each entry its bytes and the end of its
-- lifetime. The stream itself ends with the lifetime of its last entry.
-- include trim_history.lua
local time = redis.call('TIME')
trim_history(KEYS[1], '-', time[1] * 1000 + time[2] / 1000, #ARGV)
for n = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'e', ARGV[n], 'x', ARGV[n + 1])
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
