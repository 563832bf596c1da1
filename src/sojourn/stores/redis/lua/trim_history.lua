-- KEYS: the stream of the history. ARGV: now, the most entries to examine. Returns how many were removed.
-- include trim_history.lua
return trim_history(KEYS[1], tonumber(ARGV[1]), ARGV[2])
