"""The applications that are compared, by framework."""
