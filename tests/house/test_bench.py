"""The benchmarks are never asserted; that they can be run is."""

import importlib
import py_compile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bench import bench_store, bench_table, shared
from bench.figure import Figure
from bench.peers import drive, install
from bench.run import modules

from overnight.testing.services.postgres import ServiceUnavailable

PEERS = Path(drive.__file__).parent


@pytest.mark.parametrize("name", modules([]))
def test_every_module_has_figures(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").figures)


@pytest.mark.parametrize("path", sorted(PEERS.glob("*_peer.py")), ids=lambda path: str(path.stem))
def test_every_peer_is_locked_and_can_be_read(path: Path, tmp_path: Path) -> None:
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)
    name = path.stem.removesuffix("_peer")
    assert f"\n{name}==" in install.LOCK.read_text(encoding="utf-8")


@pytest.mark.anyio
async def test_the_smallest_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise ServiceUnavailable("not asked for")

    monkeypatch.setattr(shared, "postgres", none)
    for name, value in {"FEW": 100, "MANY": 200, "CALLS": 5}.items():
        monkeypatch.setattr(bench_table, name, value)
    found = await listed(bench_table.figures(long=False))
    assert any("Postgres: not asked for" in figure.line() for figure in found)
    assert {figure.unit for figure in found} == {"", "ms"}
    assert all(figure.value > 0 for figure in found if figure.unit)


@pytest.mark.anyio
async def test_bare_limits_are_measured_beside(tmp_path: Path) -> None:
    bare = bench_store.Bare(tmp_path / "bare.db", bench_store.cycle)
    assert bare.rate(0.01) > 0


async def listed(figures: AsyncIterator[Figure]) -> list[Any]:
    return [figure async for figure in figures]


def test_a_kill_is_judged_by_what_the_jobs_have_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "begun 0 0.5 1.0\nended 0 0.5 1.1\nbegun 1 0.5 1.2\nbegun 2 0.5 3.0\nended 2 0.5 3.1\n"
        "begun 1 0.5 4.0\nended 1 0.5 4.5\nbegun 0 0.5 5.0\nended 0 0.5 5.1\nbegun 3 0.5 cut",
        encoding="ascii",
    )
    judged = drive.judge(drive.read(log), 3, 2.0)
    assert (judged.twice_started, judged.twice_ended, judged.open) == (2, 1, 0)
    assert judged.back_s == pytest.approx(3.1)
