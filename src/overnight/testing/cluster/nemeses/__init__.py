"""Nemeses: what is done to a cluster while it works. Each is drawn from a seed and undoes itself."""

from __future__ import annotations

from overnight.testing.cluster.nemeses.clocks import CLOCKS
from overnight.testing.cluster.nemeses.databases import DATABASES
from overnight.testing.cluster.nemeses.disks import DISKS
from overnight.testing.cluster.nemeses.nemesis import Nemesis
from overnight.testing.cluster.nemeses.network import NETWORK
from overnight.testing.cluster.nemeses.processes import PROCESSES
from overnight.testing.cluster.nemeses.readers import READERS

ALL: tuple[Nemesis, ...] = (*PROCESSES, *DATABASES, *NETWORK, *READERS, *CLOCKS, *DISKS)


def named(*names: str) -> tuple[Nemesis, ...]:
    """Nemeses by name, in that order."""
    known = {nemesis.name: nemesis for nemesis in ALL}
    return tuple(known[name] for name in names)


__all__ = ["ALL", "Nemesis", "named"]
