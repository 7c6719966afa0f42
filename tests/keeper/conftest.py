import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.keeper.harness import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place.make(tmp_path)
    yield found
    found.clear()
    log = tmp_path / "keepers.log"
    assert not log.exists() or log.read_text() == ""
    shutil.rmtree(found.runtime_dir, ignore_errors=True)  # a spawner may be taking its socket away
