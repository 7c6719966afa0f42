"""The systemd units: what keepers and sandboxes need of a service manager, and nothing that takes it away."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.reading import DEPLOY, UNITS, VARIABLES, misread, unit

from overnight.config.settings import load

CARRYING = ["overnight.service", "overnight-worker@.service"]
BREAKS_SANDBOXES = {
    "RestrictNamespaces", "PrivateUsers", "SystemCallFilter", "ProtectKernelTunables", "ProtectKernelLogs",
    "ProcSubset", "ProtectControlGroups", "MemoryDenyWriteExecute", "PrivateTmp", "RootDirectory", "DynamicUser",
}  # fmt: skip
LASTING = [file for file in UNITS if unit(file)["Service.Type"] != ["oneshot"]]


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_its_command_is_one_of_ours(file: Path) -> None:
    (command,) = unit(file)["Service.ExecStart"]
    program, *words = shlex.split(command.replace("%i", "4010"))
    assert program == "/opt/overnight/bin/overnight"
    assert misread(words) == ""


@pytest.mark.parametrize("file", LASTING, ids=lambda file: file.name)
def test_keepers_outlive_it(file: Path) -> None:
    said = unit(file)
    assert said["Service.KillMode"] == ["process"]
    assert said["Service.Delegate"] == ["yes"]
    assert said["Service.RuntimeDirectoryPreserve"] == ["yes"]
    assert said["Service.Type"] == ["exec"]
    # A handover ends with status 0: it must not be answered with a start of the same version.
    assert said["Service.Restart"] == ["on-failure"]
    assert said["Service.RestartPreventExitStatus"] == ["2 3"]
    assert said["Service.EnvironmentFile"]
    assert int(said["Service.TimeoutStopSec"][0]) >= 15


@pytest.mark.parametrize("name", CARRYING)
def test_agents_can_be_confined_within_it(name: str) -> None:
    said = unit(DEPLOY / "systemd" / name)
    assert [key for key in said if key.removeprefix("Service.") in BREAKS_SANDBOXES] == []
    assert said["Service.NoNewPrivileges"] == ["yes"]
    assert said["Service.User"] != ["root"]


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_its_variables_are_settings_and_its_folders_its_own(file: Path) -> None:
    said = unit(file)
    variables = dict(pair.split("=", 1) for line in said["Service.Environment"] for pair in line.split())
    assert {name for name in variables if name.startswith("OVERNIGHT_")} <= VARIABLES
    assert variables["XDG_RUNTIME_DIR"] == f"/run/{said['Service.RuntimeDirectory'][0]}"
    assert variables["HOME"] == f"/var/lib/{said['Service.StateDirectory'][0]}"
    if "@" in file.name:
        assert "%i" in variables["OVERNIGHT_DATA_DIR"]


def test_systemd_itself_takes_them(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed: the units are checked by our own tests alone")
    for file in UNITS:
        name = file.name.replace("@.", "@4010.")
        text = file.read_text().replace("/opt/overnight/bin/overnight", sys.executable)
        (tmp_path / name).write_text(text)
    shutil.copy(DEPLOY / "systemd" / "overnight.target", tmp_path)
    done = subprocess.run(
        [verify, "verify", *sorted(map(str, tmp_path.iterdir()))], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "overnight" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("file", LASTING, ids=lambda file: file.name)
def test_the_program_takes_the_example_of_settings(file: Path, tmp_path: Path) -> None:
    lines = (DEPLOY / "systemd" / "overnight.env.example").read_text().splitlines()
    given = [line.removeprefix("#") for line in lines if re.match(r"#?[A-Z_]+=.", line)]
    pairs = [*given, *(pair for line in unit(file)["Service.Environment"] for pair in line.split())]
    pairs = [pair.replace("%i", "4010").replace("/srv/workspaces", str(tmp_path)) for pair in pairs]
    environment = dict(pair.split("=", 1) for pair in pairs)
    settings = load(environment, cwd=Path("/var/lib/overnight"))
    assert settings.postgres
    assert settings.data_dir.parent == Path("/var/lib/overnight")
