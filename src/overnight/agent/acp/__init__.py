"""The agent's side of the Agent Client Protocol: requests over standard input, updates over standard output.

Written against the messages rather than on the library of `overnight acp`: that builds three hundred models before it
can say hello, which is longer than this whole agent may take to start. The tests hold each message to its schema.
"""
