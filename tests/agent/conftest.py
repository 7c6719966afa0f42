"""A workspace in a folder of its own, and outside of it a tree that must never change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent.trees import Ground, ground_at


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Ends with a look at the tree outside: whatever a test does, it is as it was."""
    with ground_at(tmp_path) as made:
        yield made
        made.assert_outside_untouched()
