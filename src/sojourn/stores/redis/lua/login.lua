-- A whole login, for a server that has every key.
-- KEYS: the cutoff of invalidate_all, the record, then an index and its cutoff for each name.
-- ARGV: 1 session ID, 2 expected version (8 bytes, 0 inserts), 3 value, 4 px, 5 milliseconds for which
--   the indexes are needed, 6 now, 7 maximum sessions in the first index (0: no limit), 8 position of
--   the field that orders evictions (0: reject instead), 9 prefix of record keys, 10 prefix of index
--   keys.
-- Returns {evicted IDs}; 0 if there is no record, -1 if a cutoff rejects the login, -2 if the limit is
-- reached; or the stored value if its version differs. Whatever can fail precedes the first change.
-- include integers.lua
-- include values.lua
local id, version, value, px = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, max_sessions, order = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local function field(head, base, position)
  return to_number(string.sub(head, base + position + 1, base + position + 8))
end
local function digest(head, n)
  return string.sub(head, 2 + DIGEST_BYTES * (n - 1), 1 + DIGEST_BYTES * n)
end
local function has_name(head, base, wanted)
  for n = 1, (base - 1) / DIGEST_BYTES do
    if digest(head, n) == wanted then return true end
  end
  return false
end
local function hex(text)
  return (string.gsub(text, '.', function(c) return string.format('%02x', string.byte(c)) end))
end

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

local live, removed, stale = {}, {}, {}
for i = 3, #KEYS, 2 do
  local name, is_limited, members = digest(value, (i - 1) / 2), i == 3 and max_sessions > 0, {}
  if is_limited then
    members = redis.call('ZRANGE', KEYS[i], 0, -1)
  elseif redis.call('ZCARD', KEYS[i]) > CLEANING_SAMPLE then
    members = redis.call('ZRANDMEMBER', KEYS[i], CLEANING_SAMPLE)
  end
  for _, member in ipairs(members) do
    local key = ARGV[9] .. hex(member)
    local other, at = read_head(key)
    if member == id or not other then
    elseif not at or not has_name(other, at, name)
      or all_cutoff and field(other, at, CREATED_AT) < to_number(all_cutoff) then
      stale[#stale + 1] = {KEYS[i], member}
    elseif is_limited and string.byte(other, at + 1) % 128 <= FORMAT then
      local session = {key, member, field(other, at, math.max(order, SEEN_AT))}
      local idle_until = field(other, at, SEEN_AT) + field(other, at, IDLE_TIMEOUT)
      if now >= math.min(idle_until, field(other, at, ABSOLUTE_AT)) then
        removed[#removed + 1] = session
      else
        live[#live + 1] = session
      end
    end
  end
end
local excess = #live + 1 - max_sessions
if max_sessions == 0 then excess = 0 end
if excess > 0 and order == 0 then return -2 end
table.sort(live, function(a, b) return a[3] < b[3] or a[3] == b[3] and a[1] < b[1] end)

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
for _, entry in ipairs(stale) do redis.call('ZREM', entry[1], entry[2]) end
local function unlist(previous, member, except)
  for n = 1, string.byte(previous) - NO_NAMES do
    if not except or not has_name(except, own_base, digest(previous, n)) then
      redis.pcall('ZREM', ARGV[10] .. hex(digest(previous, n)), member)
    end
  end
end
if type(saved) == 'table' then unlist(saved[1], id, value) end
local evicted = {}
for n = 1, excess do
  evicted[n], removed[#removed + 1] = live[n][2], live[n]
end
for _, session in ipairs(removed) do
  unlist(read_head(session[1]), session[2])
  redis.call('DEL', session[1])
end
return evicted
