"""Framework integrations, one module per framework, and ``install``."""
