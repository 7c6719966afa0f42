"""Workspaces: which directories may be used, reading them safely, and our own git view of what changes in them."""
