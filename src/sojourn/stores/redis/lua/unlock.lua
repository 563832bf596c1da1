-- KEYS: a lock. ARGV: token. Returns 1 if the lock was held with this token and is released.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
