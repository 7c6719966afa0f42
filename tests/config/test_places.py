"""Folders and `server.json`: private, found again, and never somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from overnight.config import server_file
from overnight.config.paths import config_file, data_home, data_key, private_dir, runtime_dir
from overnight.errors import ConfigInvalid


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir(mode=0o700)
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_xdg_folders_are_used_when_they_are_absolute() -> None:
    assert data_home({"HOME": "/h", "XDG_DATA_HOME": "/d"}) == Path("/d/overnight")
    assert data_home({"HOME": "/h", "XDG_DATA_HOME": "d"}) == Path("/h/.local/share/overnight")
    assert config_file({"HOME": "/h"}) == Path("/h/.config/overnight/overnight.toml")


def test_the_runtime_folder_is_private(environment: dict[str, str], tmp_path: Path) -> None:
    folder = runtime_dir(environment)
    assert folder == tmp_path / "run" / "overnight"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert runtime_dir(environment).stat().st_mode & 0o777 == 0o700


def test_without_xdg_it_is_the_users_own_below_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = runtime_dir({"XDG_RUNTIME_DIR": "/nonexistent"})
    assert folder == tmp_path / f"overnight-{os.getuid()}"
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigInvalid, match="not a private folder"):
        runtime_dir({})
    folder.unlink()
    folder.write_text("")
    with pytest.raises(ConfigInvalid, match="not a private folder"):
        runtime_dir({})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "overnight"
    folder.mkdir(mode=0o777)
    os.chown(folder, 65_534, 65_534)
    with pytest.raises(ConfigInvalid, match="not a private folder"):
        private_dir(folder)


def test_a_data_directory_has_one_key_however_it_is_spelt(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert data_key(tmp_path) == data_key(tmp_path / "link") == data_key(tmp_path / "x" / "..")
    assert data_key(tmp_path) != data_key(tmp_path / "x")


def test_a_server_that_cannot_be_announced_says_where_and_what_mends_it(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server_file.path(tmp_path, environment).mkdir()
    with pytest.raises(ConfigInvalid, match=r"server\.json") as refused:
        server_file.write(tmp_path, "http://127.0.0.1:1", "ovn_secret", environment)
    assert "XDG_RUNTIME_DIR" in refused.value.mend


def test_server_json_is_found_by_its_data_directory(environment: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert server_file.read(data, environment) is None
    written = server_file.write(data, "http://127.0.0.1:1", "ovn_secret", environment)
    assert server_file.read(data, environment) == written
    assert server_file.read(tmp_path / "other", environment) is None
    file = server_file.path(data, environment)
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(file.read_text())) == {"url", "pid", "token", "started", "version"}
    assert [entry.name for entry in file.parent.iterdir()] == ["server.json"]
    server_file.remove(data, environment)
    assert server_file.read(data, environment) is None
    server_file.remove(data, environment)


def test_what_a_killed_server_left_does_not_count(environment: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    script = (
        "import sys; from pathlib import Path; from overnight.config import server_file\n"
        "server_file.write(Path(sys.argv[1]), 'http://127.0.0.1:1', 't'); print('up', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(data)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        found = server_file.read(data, environment)
        assert found is not None
        assert found.pid == child.pid
        server_file.remove(data, environment)
        assert server_file.read(data, environment) == found, "only the server itself removes its file"
        child.kill()
        # A zombie still has its pid; it is no server any more.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert server_file.read(data, environment) is None
    assert server_file.read(data, environment) is None


def test_another_process_with_the_same_pid_does_not_count(
    environment: dict[str, str], tmp_path: Path
) -> None:
    written = server_file.write(tmp_path, "http://127.0.0.1:1", "t", environment)
    file = server_file.path(tmp_path, environment)
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"started": written.started + "0"}))
    assert server_file.read(tmp_path, environment) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"url": "x", "pid": "y", "token": "z"}', "\x00"])
def test_a_damaged_file_is_no_server(environment: dict[str, str], tmp_path: Path, content: str) -> None:
    server_file.path(tmp_path, environment).write_text(content)
    assert server_file.read(tmp_path, environment) is None
