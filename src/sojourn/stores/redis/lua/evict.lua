-- Evicts sessions above a limit that a login has left.
-- KEYS: the cutoff of invalidate_all, the index. ARGV: 1 ID of the session that logged in, 2 digest of
--   the name, 3 now, 4 maximum sessions, 5 position of the field that orders evictions, 6 prefix of
--   record keys, 7 prefix of index keys.
-- Returns {number of sessions still above the limit, IDs of evicted ones}.
-- include session_limits.lua
local limit = {now = tonumber(ARGV[3]), max_sessions = tonumber(ARGV[4]), order = tonumber(ARGV[5])}
local all_cutoff = redis.call('GET', KEYS[1])
return remove_found(examine(KEYS[2], ARGV[2], ARGV[1], all_cutoff, ARGV[6], limit), ARGV[7])
