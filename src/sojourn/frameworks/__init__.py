"""Frameworks: one thin file for each, imported only by who uses it; and ``install``.

What lives here: how an application is recognised, how each framework is extended and how its
handlers get at the session. What must not: decisions about sessions; those are in ``web`` and
``core``.
"""
