"""An editor drives Overnight: the agent's side of the Agent Client Protocol, on top of the REST client.

Only `overnight acp` imports this package: the protocol's schemas take most of a second to load.
"""
