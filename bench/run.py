"""Finds every `bench/bench_*.py`, calls its `figures`, and prints them.

Such a module has `figures(*, long: bool)`, plain or asynchronous, which yields or returns `Figure`s. Words on the
command line choose the modules whose name contains one of them; `--long` asks for the slow ones too. Nothing is
asserted: a figure says how this machine did this minute, its ratio to the limit beside it says how we did.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import os
import platform
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from typing import cast

import uvloop

from bench.figure import Figure


def modules(words: list[str]) -> list[str]:
    """The names of the benchmark modules asked for."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    return [name for name in found if not words or any(word in name for word in words)]


def figures(name: str, *, long: bool) -> Iterable[Figure]:
    """Run one module."""
    measured = importlib.import_module(f"bench.{name}").figures(long=long)
    if inspect.isasyncgen(measured):
        return _one_by_one(cast("AsyncGenerator[Figure, None]", measured))
    if inspect.iscoroutine(measured):
        measured = uvloop.run(measured)
    return cast(Iterable[Figure], measured)


def _one_by_one(measured: AsyncGenerator[Figure, None]) -> Iterator[Figure]:
    async def following() -> Figure | None:
        return await anext(measured, None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while (figure := runner.run(following())) is not None:
            yield figure


def main() -> None:
    """Print all figures, module by module."""
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure Overnight against this machine's limits."
    )
    parser.add_argument("words", nargs="*", help="only benchmarks whose name contains one of these")
    parser.add_argument("--long", action="store_true", help="also what takes minutes")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.2f} before the start")
    for name in modules(asked.words):
        begun = time.perf_counter()
        print(f"\n{name.removeprefix('bench_')}")
        try:
            for figure in figures(name, long=asked.long):
                print("  " + figure.line(), flush=True)
        except Exception as error:  # noqa: BLE001 -- one that cannot run here must not hide the others
            print(f"  could not be measured: {type(error).__name__}: {error}")
        print(f"  ({time.perf_counter() - begun:.1f} s)")
