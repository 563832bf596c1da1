"""The project of the tutorial."""
