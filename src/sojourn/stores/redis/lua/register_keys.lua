-- Adds fingerprints of keys to a set: a byte FINGERPRINTS_FORMAT, then FINGERPRINT_BYTES for each.
-- KEYS: the set. ARGV: fingerprints. Returns 1; 0 if the set contains others only; -1 if it cannot be
-- read, and stays as it is. Nothing is written if all are known, so a full server does not fail.
local stored = redis.pcall('GET', KEYS[1]) or string.char(FINGERPRINTS_FORMAT)
if type(stored) ~= 'string' or string.byte(stored) ~= FINGERPRINTS_FORMAT
  or (#stored - 1) % FINGERPRINT_BYTES ~= 0 then
  return -1
end
local known, is_new, is_ours = {}, false, #stored == 1
for at = 2, #stored, FINGERPRINT_BYTES do
  known[string.sub(stored, at, at + FINGERPRINT_BYTES - 1)] = true
end
for _, fingerprint in ipairs(ARGV) do
  if known[fingerprint] then
    is_ours = true
  else
    known[fingerprint], is_new, stored = true, true, stored .. fingerprint
  end
end
if not is_ours then return 0 end
if is_new then redis.call('SET', KEYS[1], stored) end
return 1
