"""Open connections of sessions in this process, and broadcasts from and to other processes."""
