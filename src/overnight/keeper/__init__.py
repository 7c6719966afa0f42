"""The spawner and the keepers: small programs that own agent processes and outlive the server.

Standard library and `overnight.keeper_protocol` only; started with `python -I -S -E`.
"""
