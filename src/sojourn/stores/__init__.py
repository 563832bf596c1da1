"""Stores: one module or package for each place where records are kept."""
