"""kill -9 of the upgrade at every step: either version serves, or the next start makes it so; nothing is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.upgrade.conftest import NEXT, Site

from overnight.testing.signals import wait_until


@pytest.mark.parametrize(
    "at",
    ["same+kill:handover:begun", "none+kill:handover:done", "none+kill:migrate:done", "same+kill:ready:done"],
)
def test_the_one_that_works_is_killed(site: Site, at: str) -> None:
    """The one that shows takes everything back; before the old server has been asked, there is nothing to take back."""
    run = site.working()
    upgraded = site.upgrade(f"{at}:work")
    assert (upgraded.status, upgraded.end) == (1, "refused" if at.endswith("begun") else "rolled_back"), (
        upgraded
    )
    assert site.http.get("/readyz").status_code == 200
    assert str(NEXT) not in site.command_line()
    site.unharmed(run)


def test_both_are_killed_on_the_way_back(site: Site) -> None:
    """What was on its way back goes on back."""
    run = site.working()
    assert site.upgrade("late+kill:rollback stop:done:both").status == -9
    upgraded = site.upgrade("none")
    assert (upgraded.status, upgraded.end) == (1, "rolled_back"), upgraded
    assert str(NEXT) not in site.command_line()
    site.unharmed(run)


def test_both_are_killed(site: Site) -> None:
    """As in a power cut. Nobody serves; the same command again picks it up."""
    run = site.working()
    assert site.upgrade("none+kill:migrate:done:both").status == -9
    assert site.serving is None
    upgraded = site.upgrade("none")
    assert (upgraded.status, upgraded.end) == (0, "upgraded"), upgraded
    site.unharmed(run)


def test_the_one_that_shows_is_killed(site: Site) -> None:
    """The one that works goes on: the new version serves."""
    run = site.working()
    assert site.upgrade("same+kill:handover:begun:front").status == -9
    wait_until(lambda: (found := site.serving) and found.version == "9.0.0", within=60, every=0.02)
    site.unharmed(run)
    wait_until(lambda: not (site.data / "upgrade.json").exists())


def test_both_are_killed_and_the_new_version_is_started_by_hand(site: Site) -> None:
    run = site.working()
    assert site.upgrade("none+kill:backup:done:both").status == -9
    started = subprocess.Popen(
        [sys.executable, str(NEXT), "none", "up"], env=site.env(), cwd=site.root, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: site.serving, within=60, every=0.02)
        site.unharmed(run)
    finally:
        started.terminate()
        started.wait()
