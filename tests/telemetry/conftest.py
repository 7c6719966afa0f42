"""A workspace for what is observed."""

from pathlib import Path

import pytest

from overnight.workspaces.directories import DirectoryWorkspaces


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def workspaces(tmp_path: Path) -> DirectoryWorkspaces:
    return DirectoryWorkspaces(
        roots=[tmp_path / "work"], data_dir=tmp_path / "data", run_folder=lambda run: tmp_path / "data" / run,
        home=tmp_path / "home",
    )  # fmt: skip
