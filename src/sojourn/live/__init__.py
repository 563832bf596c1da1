"""Live: what a session has open, and how it is closed when the session ends.

What lives here: the registry of open connections and the WebSocket adapter. What must not: the
decision that a session has ended; events tell. Announcements between processes will be read here.
"""
