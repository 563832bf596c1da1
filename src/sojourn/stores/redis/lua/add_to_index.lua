-- The last part of lock_index.lua, for a slot that is being migrated: a command has one key there.
-- KEYS: index. ARGV: ID, milliseconds for which it is needed, maximum sessions (0: no limit).
-- include add_to_index.lua
return add_to_index(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
