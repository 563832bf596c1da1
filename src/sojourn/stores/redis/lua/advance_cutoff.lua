-- Moves a cutoff forward, never backward.
-- KEYS: a cutoff. ARGV: the instant (8 bytes), milliseconds until it may be forgotten (0: never).
-- include integers.lua
local cutoff = redis.call('GET', KEYS[1])
if not cutoff or to_number(cutoff) < to_number(ARGV[1]) then
  if ARGV[2] == '0' then
    redis.call('SET', KEYS[1], ARGV[1])
  else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  end
end
return 1
