"""What is found out before anything is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.upgrade.conftest import NEXT

from overnight.compose.upgrade import plan
from overnight.compose.upgrade.database import SqliteFile
from overnight.compose.upgrade.plan import Options
from overnight.compose.upgrade.program import Program
from overnight.compose.upgrade.servers import Server
from overnight.errors import ConfigInvalid, StartRefused
from overnight.version import VERSION

HERE = (sys.executable, "-P", "-m", "overnight")
OTHER = (sys.executable, str(NEXT), "none")


def server(prefix: tuple[str, ...], of: str, *, managed: bool = False) -> Server:
    program = Program(prefix=prefix, cwd=Path("/"), environment={"HOME": "/nonexistent"})
    return Server(program=program, arguments=("up",), version=of, managed=managed)


@pytest.mark.parametrize(
    "prefix, of, there",
    [
        (HERE, VERSION, True),
        (HERE, "0.0.1", False),
        (OTHER, VERSION, False),
        (OTHER, "9.0.0", True),
        (("/no/such",), VERSION, False),
    ],
)
def test_only_the_version_that_served_is_a_way_back(prefix: tuple[str, ...], of: str, there: bool) -> None:
    assert plan._still_there(server(prefix, of)) is there


def test_what_a_service_manager_has_started_only_it_starts_again() -> None:
    managed = server(HERE, VERSION, managed=True)
    with pytest.raises(ConfigInvalid, match="systemd"):
        plan._refuse_what_cannot_go_well(managed, Options())
    plan._refuse_what_cannot_go_well(managed, Options(restart_command=("systemctl", "restart", "overnight")))


@pytest.mark.parametrize(
    "restart, stop, stopping",
    [
        ("systemctl --user restart overnight", "", "systemctl --user stop overnight"),
        (
            "sudo -n systemctl restart overnight-server@4010",
            "",
            "sudo -n systemctl stop overnight-server@4010",
        ),
        ("systemctl --user restart overnight", "true", "true"),
        ("supervisorctl restart overnight", "", ""),
        ("", "", ""),
    ],
)
def test_how_to_stop_is_known_of_systemd(restart: str, stop: str, stopping: str) -> None:
    options = Options(restart_command=tuple(restart.split()), stop_command=tuple(stop.split()))
    assert options.stopping() == tuple(stopping.split())


@pytest.mark.parametrize(
    "arguments, found",
    [
        (("up",), {}),
        (("up", "--data-dir", "d"), {"data_dir": "/d"}),
        (("up", "--data-dir=/e"), {"data_dir": "/e"}),
    ],
)
def test_where_the_server_was_told_to_keep_its_data(
    arguments: tuple[str, ...], found: dict[str, str]
) -> None:
    program = Program(prefix=HERE, cwd=Path("/"), environment={})
    assert plan._given(Server(program=program, arguments=arguments, version=VERSION)) == found


def test_a_file_that_is_no_database_is_not_upgraded(tmp_path: Path) -> None:
    file = tmp_path / "overnight.db"
    file.write_bytes(b"no database " * 1000)
    with pytest.raises(StartRefused, match="not a database") as refused:
        SqliteFile(path=file).revision()
    assert "overnight db restore" in refused.value.mend
