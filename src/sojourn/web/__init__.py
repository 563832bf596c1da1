"""HTTP and WebSocket: cookies, headers, and the ASGI and WSGI middleware."""
