"""Stores: where records live.

What lives here: one file for each place, the contract they share (``base.py``) and the table of URL
schemes (``url.py``). What must not: decisions about sessions; a store keeps, compares and forgets
records, and every store behaves the same because everything hard is decided in ``core``.
"""
