"""The web side: cookies, headers, transports, and the ASGI and WSGI middleware.

Nothing is imported here; whoever needs a part imports its module. The order of one request is in
``ARCHITECTURE.md``. Read next: ``asgi.py``.
"""
