"""Polls: the application of the tutorial."""
