"""Servers that tests start for themselves: real ones, from locked packages, on loopback."""
