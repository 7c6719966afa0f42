"""The peers' own environment: made once from `requirements-peers.lock` in the user's cache folder, never in ours."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK: Final = Path(__file__).parents[2] / "requirements-peers.lock"


class PeersUnavailable(RuntimeError):
    """The peers cannot be installed here; the message says why."""


def python() -> Path:
    """The interpreter of the peers' environment, which is made when it is not there. Raises PeersUnavailable."""
    folder = _folder()
    found = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, found)
            (folder / "complete").touch()
    return found


def _make(folder: Path, found: Path) -> None:
    venv.create(folder, with_pip=True)
    argv = [
        str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
        "--root-user-action=ignore", "--require-hashes", "-r", str(LOCK),
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise PeersUnavailable("pip could not install the peers: " + " ".join(lines[-2:]))


def _folder() -> Path:
    chosen = os.environ.get("OVERNIGHT_PEERS_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return (Path(chosen) if chosen else Path(cache) / "overnight") / f"peers-{digest}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
