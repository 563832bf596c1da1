-- Publishes in a cluster: on a sharded channel if the server supports it (since Redis 7.0, as
-- REDIS_VERSION_NUM). KEYS: the channel of a session. ARGV: a message.
return redis.call(redis.REDIS_VERSION_NUM and 'SPUBLISH' or 'PUBLISH', KEYS[1], ARGV[1])
