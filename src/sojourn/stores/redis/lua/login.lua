-- A whole login, for a server that has every key.
-- KEYS: the cutoff of invalidate_all, the record, then an index and its cutoff for each name.
-- ARGV: 1 session ID, 2 expected version (8 bytes, 0 inserts), 3 value, 4 px, 5 milliseconds for which
--   the indexes are needed, 6 now, 7 maximum sessions in the first index (0: no limit), 8 position of
--   the field that orders evictions (0: reject instead), 9 prefix of record keys, 10 prefix of index
--   keys.
-- Returns {number of sessions still above the limit, IDs of evicted ones}; 0 if there is no record, -1
-- if a cutoff rejects the login, -2 if the limit is reached; or the stored value if its version
-- differs. Whatever can fail precedes the first change.
-- include integers.lua
-- include values.lua
-- include session_limits.lua
local id, version, value, px = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local limit = {now = tonumber(ARGV[6]), max_sessions = tonumber(ARGV[7]), order = tonumber(ARGV[8])}

local all_cutoff = redis.call('GET', KEYS[1])
local own_base = 1 + DIGEST_BYTES * (string.byte(value) - NO_NAMES)
for i = 3, #KEYS, 2 do
  redis.call('ZCARD', KEYS[i])
  local cutoff = redis.call('GET', KEYS[i + 1])
  if cutoff and to_number(cutoff) > field(value, own_base, AUTHENTICATED_AT) then return -1 end
end
local head, base = read_head(KEYS[2])
if all_cutoff and base and head and field(head, base, CREATED_AT) < to_number(all_cutoff) then
  return 0
end

local found
for i = 3, #KEYS, 2 do
  local name, is_limited = digest(value, (i - 1) / 2), i == 3 and limit.max_sessions > 0
  local other = examine(KEYS[i], name, id, all_cutoff, ARGV[9], is_limited and limit)
  if found then
    for _, entry in ipairs(other.stale) do found.stale[#found.stale + 1] = entry end
  else
    found = other
  end
end
if found and found.excess > 0 and limit.order == 0 then return -2 end

local saved
if to_number(version) == 0 then
  saved = create(KEYS[2], value, px)
else
  saved = save(KEYS[2], version, value, px, true)
end
if type(saved) == 'string' then return redis.call('GET', KEYS[2]) end
if saved == 0 or type(saved) == 'table' and saved.err then return saved end

local time = redis.call('TIME')
for i = 3, #KEYS, 2 do
  redis.call('ZADD', KEYS[i], time[1] .. string.format('%06d', time[2]), id)
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[5]) then
    redis.call('PEXPIRE', KEYS[i], ARGV[5])
  end
end
if type(saved) == 'table' then unlist(saved[1], id, ARGV[10], value, own_base) end
return found and remove_found(found, ARGV[10]) or {0}
