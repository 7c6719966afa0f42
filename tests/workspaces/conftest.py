"""A workspace and its shadow."""

from pathlib import Path

import pytest

from overnight.workspaces.shadow import GitShadow


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def shadow(tmp_path: Path, work: Path) -> GitShadow:
    return GitShadow(repository=tmp_path / "run" / "shadow.git", workspace=work)
