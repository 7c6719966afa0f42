"""`server.json`: how the commands find the server of a data directory. In the user's runtime folder, mode 0600."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overnight.config.paths import data_key, private_dir, runtime_dir
from overnight.errors import ConfigInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFile:
    """Where a server answers, and the token of its own user. `started` tells its pid from a later process's."""

    url: str
    pid: int
    token: str = field(repr=False)
    started: str = ""
    version: str = ""


def path(data_dir: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Where `server.json` of a data directory lies. Its folder is made when missing (see `paths.runtime_dir`)."""
    runtime = runtime_dir(os.environ if environment is None else environment)
    return private_dir(runtime / data_key(data_dir)) / "server.json"


def write(
    data_dir: Path, url: str, token: str, environment: Mapping[str, str] | None = None, *, version: str = ""
) -> ServerFile:
    """Announce this process as the server of `data_dir`; replaces what an earlier one left, in one step.

    Raises ConfigInvalid where it cannot be written, on a full disk for one.
    """
    file = path(data_dir, environment)
    pid = os.getpid()
    found = ServerFile(url=url, pid=pid, token=token, started=_started(pid), version=version)
    content = {"url": url, "pid": pid, "token": token, "started": found.started, "version": version}
    fresh = file.with_name(f"server.json.{found.pid}")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(content, out)
        fresh.replace(file)
    except OSError as error:
        raise ConfigInvalid(
            f"{file}, by which commands find the server, cannot be written: {error.strerror or error}",
            mend="make room there, or set XDG_RUNTIME_DIR to another private folder of yours",
        ) from None
    return found


def read(data_dir: Path, environment: Mapping[str, str] | None = None) -> ServerFile | None:
    """The living server of `data_dir`, or None. What a killed server left behind does not count."""
    try:
        document = json.loads(path(data_dir, environment).read_text(encoding="utf-8"))
        found = ServerFile(
            url=str(document["url"]),
            pid=int(document["pid"]),
            token=str(document["token"]),
            started=str(document.get("started", "")),
            version=str(document.get("version", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if _alive(found) else None


def remove(data_dir: Path, environment: Mapping[str, str] | None = None) -> None:
    """Take this process's announcement away; another server's stays."""
    found = read(data_dir, environment)
    if found is not None and found.pid == os.getpid():
        path(data_dir, environment).unlink(missing_ok=True)


def _alive(server: ServerFile) -> bool:
    try:
        os.kill(server.pid, 0)
    except (ProcessLookupError, PermissionError, OverflowError):
        return False
    return not server.started or server.started == _started(server.pid)


def _started(pid: int) -> str:
    """When a process started, in a form that no later process of the same pid has; empty where it cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    # The name in parentheses may hold spaces; behind it come the state and, as the 20th field, the start time.
    fields = stat.rpartition(")")[2].split()
    return "dead" if fields[0] in "ZX" else f"{boot}:{fields[19]}"
