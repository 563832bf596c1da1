"""Stores: one module or package for each backend."""
