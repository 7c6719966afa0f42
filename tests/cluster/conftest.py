"""Fixtures of the cluster tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.harness import Cluster, Start


@pytest.fixture
def cluster(postgres_url: str) -> Iterator[Start]:
    """Make a cluster on a fresh database; it is ended, with all that it left, after the test."""
    made: list[Cluster] = []
    roots: list[Path] = []

    def make(scripts: object = (), **environment: str) -> Cluster:
        roots.append(Path(tempfile.mkdtemp(prefix="ovc-", dir="/tmp")).resolve())
        found = Cluster(roots[-1], postgres_url, **environment)
        found.scripts = dict(scripts)  # type: ignore[call-overload]
        made.append(found)
        return found

    yield make
    for found in made:
        found.stop()
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)
