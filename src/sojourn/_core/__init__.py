"""The core: what a session is and what must be written, without doing any I/O.

What lives here: pure decisions and one coroutine engine. What must not: a framework, a client
library, an event loop of its own, a clock of its own. It imports the standard library's pure
parts, msgspec and cryptography, and nothing else (``tests/test_imports.py``).

Reading order: ``record``, ``codec``, ``operations``, ``view``, ``session``, ``plan``, ``engine``.
"""
