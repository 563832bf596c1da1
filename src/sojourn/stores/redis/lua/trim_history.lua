-- KEYS: the stream of the history. ARGV: now, the most entries to examine, the ID of the last entry that
-- was examined before; empty for none. Returns that of this call; empty if no entry follows.
-- include trim_history.lua
local start = ARGV[3] == '' and '-' or '(' .. ARGV[3]
return trim_history(KEYS[1], start, tonumber(ARGV[1]), tonumber(ARGV[2]))
