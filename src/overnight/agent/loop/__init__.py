"""One turn of the agent: the model is asked, its tool calls are carried out, until it has nothing left to call.

pydantic-ai drives it: it dispatches calls, runs those side by side that may, and counts usage. What is said to the
model is the session's history, and what it says comes through the model port, so neither a provider's library nor a
key is needed here.
"""
