"""What the demonstrations share: a folder, an environment, and a server of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path


def environment(folder: Path, config: str) -> dict[str, str]:
    """For a server, and for commands that talk to it, which keep everything in `folder`."""
    file = folder / "overnight.toml"
    file.touch(mode=0o600)
    file.write_text(config, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OVERNIGHT_")}
    return {
        **kept,
        "OVERNIGHT_CONFIG": str(file),
        "OVERNIGHT_DATA_DIR": str(folder / "data"),
        "OVERNIGHT_WORKSPACE_ROOTS": str(folder),
        "OVERNIGHT_LISTEN": f"127.0.0.1:{_port()}",
        "OVERNIGHT_LOG_LEVEL": os.environ.get("OVERNIGHT_LOG_LEVEL", "warning"),
    }


def fresh_folder(asked: Path | None) -> Path:
    """Where everything of one demonstration is kept; a fresh folder unless one is named."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        return asked.resolve()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if base.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve()):
        # Codex refuses to keep its helpers beneath the temporary directory.
        base = Path("/var/tmp") / f"overnight-{os.getuid()}"  # noqa: S108
    base = base / "overnight" / "demo"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=base))


def _port() -> int:
    """4010 when it is free, else any free one."""
    for port in (4010, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def is_ready(server: subprocess.Popen[bytes], listen: str) -> bool:
    """Whether the server takes work, once that is decided."""
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{listen}/readyz", timeout=2):
            return True
        time.sleep(0.02)
    return False


def end(server: subprocess.Popen[bytes]) -> None:
    """End it in order."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(15)


def say(words: str, status: int = 0) -> int:
    """Tell whoever watches; gives `status`."""
    sys.stderr.write(words + "\n")
    return status
