"""Adapters, one folder for each kind of agent program; `process` is what those with a process of their own share."""
