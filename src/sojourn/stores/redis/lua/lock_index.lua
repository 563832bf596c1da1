-- The first step of a login in a cluster: locks an index and adds the session to it.
-- KEYS: index, cutoff, lock. ARGV: token, lease in milliseconds, authenticated_at (8 bytes), ID,
-- milliseconds for which the index is needed, maximum sessions (0: no limit).
-- Returns {'busy'}; {'revoked'} if the cutoff is later; or what add_to_index returns.
-- include integers.lua
-- include add_to_index.lua
if redis.call('EXISTS', KEYS[3]) == 1 then return {'busy'} end
local cutoff = redis.call('GET', KEYS[2])
if cutoff and to_number(cutoff) > to_number(ARGV[3]) then return {'revoked'} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
return add_to_index(KEYS[1], ARGV[4], ARGV[5], ARGV[6])
