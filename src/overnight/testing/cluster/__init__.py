"""A whole installation on loopback, to break: servers, workers, Postgres and Valkey, or one server on SQLite.

`python -m overnight.testing.cluster` carries runs while parts of it are killed, and prints the checker's verdict.
"""

from __future__ import annotations

from overnight.testing.cluster.layout import Layout
from overnight.testing.cluster.members import Cluster, Member

__all__ = ["Cluster", "Layout", "Member"]
