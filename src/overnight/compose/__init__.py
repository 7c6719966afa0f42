"""Puts the programs together: the only package that knows every adapter.

`foreground` is the server, `worker` a worker without one. Nothing is imported here, so that each loads only its own.
"""
