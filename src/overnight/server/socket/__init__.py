"""The socket: one WebSocket, `overnight.v1`, for everything that a client has to say and to hear."""
