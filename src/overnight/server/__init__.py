"""The HTTP server: an ASGI application, denied by default."""
