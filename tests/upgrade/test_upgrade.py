"""From one version to the next while an agent works, and back when the next one is not up to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.upgrade.conftest import NEXT, Site

from overnight.stores.sql import migrate
from overnight.testing.signals import wait_until

BEFORE = migrate.HEAD
AFTER = "9001"


def test_what_is_only_tried_changes_nothing(site: Site) -> None:
    serving = site.serving
    upgraded = site.upgrade("migration")
    assert (upgraded.status, upgraded.end, upgraded.failed) == (1, "refused", ["rehearse"]), upgraded
    assert "this migration does not work" in upgraded.words("rehearse")
    upgraded = site.upgrade("none", "--dry-run")
    assert (upgraded.status, upgraded.end, upgraded.done) == (0, "planned", ["plan", "rehearse"]), upgraded
    assert upgraded.words("plan").endswith(
        f"to version 9.0.0; schema {BEFORE} to 9001, started anew in the background"
    )
    assert (site.serving, site.schema) == (serving, BEFORE)
    assert not list(site.data.glob("*rehearsal*"))


@pytest.mark.parametrize(
    "fault, failed",
    [("late", "migrate"), ("unready", "ready"), ("stuck", "ready")],
)
def test_what_does_not_come_up_goes_back(site: Site, fault: str, failed: str) -> None:
    run = site.working()
    upgraded = site.upgrade(fault, "--within", "4s" if fault in {"unready", "stuck"} else "20s")
    assert (upgraded.status, upgraded.end) == (1, "rolled_back"), upgraded
    assert upgraded.failed == [failed]
    assert upgraded.done[-3:] == ["rollback stop", "rollback data", "rollback start"]
    assert site.serving is not None
    assert site.serving.version != "9.0.0"
    assert site.schema == BEFORE
    assert str(NEXT) not in site.command_line()
    if fault == "stuck":
        assert "is in place; what was written since is in" in upgraded.words("rollback data")
        assert site.until(run["id"], "completed")
    else:
        site.unharmed(run)
    assert not (site.data / "upgrade.json").exists()


def test_the_operators_own_commands_start_and_stop(site: Site, tmp_path: Path) -> None:
    """As a service manager would: neither version is started in any other way."""
    run = site.working()
    calls = tmp_path / "calls"
    manager = tmp_path / "manager"
    manager.write_text(
        f"""import os, signal, subprocess, sys
open({str(calls)!r}, "a").write(sys.argv[1] + "\\n")
if sys.argv[1] == "stop":
    os.kill(int(open({str(calls)!r} + ".pid").read()), signal.SIGKILL)
else:
    program = ["-m", "overnight"] if sys.argv[1] == "old" else [{str(NEXT)!r}, sys.argv[1]]
    made = subprocess.Popen([sys.executable, *program, "up"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True)
    open({str(calls)!r} + ".pid", "w").write(str(made.pid))
""",
        encoding="utf-8",
    )
    said = f"{sys.executable} {manager}"
    commands = ("--stop-command", f"{said} stop", "--rollback-command", f"{said} old")
    upgraded = site.upgrade("none", "--restart-command", f"{said} hang", "--within", "1s", *commands)
    assert upgraded.end == "rolled_back", upgraded
    assert calls.read_text().split() == ["hang", "stop", "old"]
    upgraded = site.upgrade("none", "--restart-command", f"{said} none", *commands)
    assert upgraded.end == "upgraded", upgraded
    assert calls.read_text().split()[3:] == ["none"]
    site.unharmed(run)


def test_the_next_version_takes_over_and_no_agent_notices(site: Site) -> None:
    run = site.working()
    upgraded = site.upgrade("none")
    assert (upgraded.status, upgraded.end) == (0, "upgraded"), upgraded
    assert upgraded.done == ["plan", "rehearse", "handover", "backup", "migrate", "start", "ready"]
    assert site.serving is not None
    assert (site.serving.version, site.schema) == ("9.0.0", AFTER)
    assert str(NEXT) in site.command_line()
    assert Path(upgraded.words("backup")).exists()
    site.unharmed(run)
    again = site.upgrade("none")
    assert (again.status, again.end) == (0, "nothing_to_do"), again
    log = (site.data / "upgrade.log").read_text().splitlines()
    assert json.loads(log[-1])["state"] == "upgraded"
    assert not (site.data / "upgrade.json").exists()


def test_a_stopped_server_makes_way_too_and_then_the_data_alone_is_upgraded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears nothing, so it is killed; what it had not recorded is still with the keeper."""
    from overnight.compose.upgrade import servers
    from overnight.compose.upgrade.servers import Place

    monkeypatch.setattr(servers, "MAKE_WAY_WITHIN_S", 0.2)
    found = servers.find(Place(data_dir=site.data, environment=site.env()))
    assert found is not None
    site.server().suspend()
    servers.make_way(found)
    assert not found.alive
    wait_until(lambda: site.serving is None)
    upgraded = site.upgrade("none")
    assert (upgraded.status, upgraded.done) == (0, ["plan", "rehearse", "backup", "migrate"]), upgraded
    assert (site.serving, site.schema) == (None, AFTER)
