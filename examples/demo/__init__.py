"""The demo: one page that shows what a session does. Start it with ``make demo``.

What lives here: ``app.py`` (the application, read it first), ``__main__.py`` (finding a port and
serving), four small helpers, and ``page/`` (the HTML, CSS and JavaScript). What must not: anything
that sojourn needs; this folder is an example and is not installed.
"""
