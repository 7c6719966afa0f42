"""The same on Postgres, where servers of both versions work side by side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.upgrade.conftest import NEXT, SCRIPT, Site

from overnight.compose.upgrade.postgres import PostgresDatabase
from overnight.errors import StartRefused
from overnight.stores.sql import migrate, postgres_admin
from overnight.testing.signals import wait_until

AFTER = "9001"
Start = Callable[..., Site]


@pytest.fixture
def start(tmp_path: Path, postgres_url: str) -> Iterator[Start]:
    sites: list[Site] = []

    def started(name: str, *arguments: str) -> Site:
        (tmp_path / name).mkdir()
        # A long lease: on a busy machine the next version may need longer to start than an agent lives by itself.
        environment = {"OVERNIGHT_DATABASE_URL": postgres_url, "OVERNIGHT_LEASE_S": "60"}
        site = Site(root=tmp_path / name, scripts={"steady": SCRIPT}, environment=environment)
        sites.append(site)
        site.start(*arguments)
        return site

    yield started
    for site in sites:
        site.stop()


def test_one_server_after_the_other(start: Start, postgres_url: str) -> None:
    first, second = start("first"), start("second")
    runs = [(site, site.working()) for site in (first, second)]
    upgraded = first.upgrade("none")
    assert (upgraded.status, upgraded.end) == (0, "upgraded"), upgraded
    assert upgraded.done == ["plan", "rehearse", "backup", "migrate", "handover", "start", "ready"]
    assert Path(upgraded.words("backup")).exists()
    assert postgres_admin.check(postgres_url).revision == AFTER
    # The other one is of the old version, and goes on.
    assert second.serving is not None
    assert second.serving.version != "9.0.0"
    later = second.working()
    upgraded = second.upgrade("none")
    assert (upgraded.status, upgraded.end) == (0, "upgraded"), upgraded
    assert "none" in upgraded.words("backup")
    for site, run in [*runs, (second, later)]:
        site.unharmed(run)


def test_a_migration_that_fails_disturbs_nobody_and_a_server_that_does_not_come_up_leaves_the_schema_to_the_others(
    start: Start, postgres_url: str
) -> None:
    site = start("only", "--no-worker")
    worker = subprocess.Popen([sys.executable, "-m", "overnight", "worker"], env=site.env(), cwd=site.root)
    wait_until(
        lambda: any(found["slots"] for found in site.http.get("/api/v1/workers").json()["items"]),
        within=60,
        every=0.05,
    )
    run, serving = site.working(), site.serving
    upgraded = site.upgrade("late")
    assert (upgraded.status, upgraded.failed) == (1, ["migrate"]), upgraded
    assert site.serving == serving
    assert postgres_admin.check(postgres_url).revision == migrate.HEAD
    upgraded = site.upgrade("unready", "--within", "4s", "--no-backup")
    assert worker.poll() is None, (
        "a worker beside the server, on the same data directory, is none of its business"
    )
    assert (upgraded.status, upgraded.end) == (1, "rolled_back"), upgraded
    assert f"stays at {AFTER}" in upgraded.words("rollback data")
    assert str(NEXT) not in site.command_line()
    site.unharmed(run)
    assert (
        site.upgrade("late").end == "upgraded"
    )  # the schema is there already: nothing is left that could fail
    worker.terminate()
    assert worker.wait(60) == 0


def test_a_schema_that_old_programs_cannot_use_is_refused(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_admin.make_or_upgrade(postgres_url)
    monkeypatch.setattr(migrate, "HEAD", AFTER)
    monkeypatch.setattr(migrate, "OLDEST_PROGRAM", AFTER)
    with pytest.raises(StartRefused, match="cannot go on meanwhile"):
        PostgresDatabase(url=postgres_url, folder=tmp_path, copying=False, old=None).rehearse()
