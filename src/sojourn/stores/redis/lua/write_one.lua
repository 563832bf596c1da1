-- write.lua for one step and without the cutoff, for a slot that is being migrated.
-- include steps.lua
return run_steps({}, 1)
