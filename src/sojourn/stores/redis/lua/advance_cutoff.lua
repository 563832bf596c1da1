-- Moves a cutoff forward, never backward.
-- KEYS: a cutoff. ARGV: the instant (8 bytes), milliseconds until it may be removed (0: never).
-- include integers.lua
local cutoff = redis.call('GET', KEYS[1])
if not cutoff or to_number(cutoff) < to_number(ARGV[1]) then
  -- A full server (maxmemory, noeviction) denies SET, unless the script has executed a write that it
  -- allows, such as DEL (all versions: scriptVerifyOOM, SCRIPT_WRITE_DIRTY). A revocation must not
  -- depend on free memory; a cutoff takes about 100 bytes.
  redis.call('DEL', KEYS[1])
  if ARGV[2] == '0' then
    redis.call('SET', KEYS[1], ARGV[1])
  else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  end
end
return 1
