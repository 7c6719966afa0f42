"""Puts the program together: the only package that knows every adapter."""

from overnight.compose.foreground import serve

__all__ = ["serve"]
