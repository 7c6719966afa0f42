"""Whether a server keeps to the socket protocol, judged from outside: by messages alone.

`python -m overnight.testing.conformance.socket ws://…` runs it against a server somewhere; `SocketSuite` in `suite`
runs it in pytest, against anything that `Offer` can be filled in for.
"""
