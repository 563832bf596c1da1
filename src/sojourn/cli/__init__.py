"""The command line: one module for each command, on click and rich (extra ``sojourn[cli]``)."""
