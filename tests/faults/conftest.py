"""Trials on clusters of real processes. Each has a folder of its own with a short name, since sockets lie in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.testing.cluster.databases import Unavailable
from overnight.testing.cluster.layout import Layout
from overnight.testing.cluster.stage import Stage
from overnight.testing.cluster.trial import Trial, carry_out
from overnight.testing.history import History

Try = Callable[..., Awaitable[History]]


@pytest.fixture
def root() -> Iterator[Path]:
    """Where a cluster lies; kept when a promise was broken, so that its history and logs can be read."""
    found = Path(tempfile.mkdtemp(prefix="ovn-", dir="/tmp"))
    yield found
    if not (found / "keep").exists():
        shutil.rmtree(found, ignore_errors=True)


@pytest.fixture
def attempt(root: Path) -> Try:
    """Carry out one trial and hand its history over; AssertionError with the verdict when a promise was broken."""

    async def carry(
        plot: Callable[[Stage], Awaitable[None]], *, seed: int, runs: int, **options: Any
    ) -> History:
        print(f"seed {seed}, {root}")
        trial_options = {
            name: options.pop(name) for name in ("over_s", "at_once", "bound_s", "pace_s") if name in options
        }
        layout = Layout(root=root, **options)
        trial = Trial(layout=layout, seed=seed, runs=runs, plot=plot, **trial_options)
        try:
            verdict = await carry_out(trial, print)
        except Unavailable as missing:
            pytest.skip(str(missing))
        print(verdict)
        if not verdict.good:
            (root / "keep").touch()
        assert verdict.good, f"seed {seed}, {root}: {verdict}"
        return History.load(layout.history, layout.agents)

    return carry
