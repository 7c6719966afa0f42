"""The socket protocol `overnight.v1`, without I/O: one connection, many scopes, both sides alike."""
