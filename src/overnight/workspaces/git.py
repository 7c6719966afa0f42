"""Runs git in isolation: no configuration, hook, filter or helper of the system, the user or a workspace is obeyed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overnight.errors import WorkspaceUnreadable

TIMEOUT_S: Final = 120.0
CPU_S: Final = 600
"""Processor seconds after which the system ends a git that nobody looks after any more."""
MAX_OUTPUT: Final = 64 << 20
"""Bytes of a git command's output that are read; then it is ended."""
PIPE: Final = 32_768
"""Bytes that every pipe takes at once."""
_SETTINGS: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.protectNTFS": "false",
    "core.bigFileThreshold": "4m",
    "core.looseCompression": "1",
    "core.fsync": "none",
    "core.pager": "cat",
    "core.sshCommand": "ssh -oBatchMode=yes",
    "credential.helper": "",
    "diff.ignoreSubmodules": "all",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "advice.addEmbeddedRepo": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """git with a clean environment. `variables` name the repository, work tree and index, `settings` add to ours."""

    variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path("/")

    def run(
        self, *arguments: str, stdin: bytes = b"", limit: int = MAX_OUTPUT, timeout_s: float = TIMEOUT_S
    ) -> bytes:
        """What git prints, at most `limit` bytes. Raises WorkspaceUnreadable when it fails or takes too long.

        In the latter case its `extra` names `timeout_s`: a hostile tree can make git work for years.
        """
        process = self._start(arguments)
        late = threading.Event()
        timer = threading.Timer(timeout_s, _end, [process, late])
        timer.start()
        try:
            output, errors, whole = _talk(process, stdin, limit)
        finally:
            timer.cancel()
            _end(process)
        if late.is_set():
            message = f"git {_verb(arguments)} took longer than {timeout_s:g} s"
            raise WorkspaceUnreadable(message, extra={"timeout_s": timeout_s})
        if whole and process.returncode != 0:
            mend = "make room on the disk" if b"No space left" in errors else ""
            raise WorkspaceUnreadable(f"git {_verb(arguments)} failed: {_last_line(errors)}", mend=mend)
        return output

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        settings = [
            part
            for name, value in {**_SETTINGS, **self.settings}.items()
            for part in ("-c", f"{name}={value}")
        ]
        try:
            process = subprocess.Popen(
                ["git", "--no-pager", "--literal-pathspecs", *settings, *arguments],
                env={**_environment(), **self.variables},
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            if not self.folder.is_dir():
                raise WorkspaceUnreadable(f"{self.folder} is gone") from None
            raise WorkspaceUnreadable(
                f"git cannot be started: {error.strerror}", mend="install git"
            ) from None
        _bound(process)
        return process


def _bound(process: subprocess.Popen[bytes]) -> None:
    """Let it end by itself, should this server be killed while a hostile tree keeps it busy."""
    if sys.platform == "linux":
        with suppress(OSError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (CPU_S, CPU_S))


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_NAME": "overnight",
        "GIT_AUTHOR_EMAIL": "overnight@localhost",
        "GIT_COMMITTER_NAME": "overnight",
        "GIT_COMMITTER_EMAIL": "overnight@localhost",
    }


def _talk(process: subprocess.Popen[bytes], stdin: bytes, limit: int) -> tuple[bytes, bytes, bool]:
    """Output, errors, and whether the output is whole. Each pipe has a reader of its own, so none can block another."""
    errors: list[bytes] = []
    reader = threading.Thread(target=_collect, args=(process, errors), daemon=True)
    reader.start()
    writer = threading.Thread(target=_write, args=(process, stdin), daemon=True)
    if len(stdin) > PIPE:
        writer.start()
    else:
        _write(process, stdin)
    assert process.stdout is not None  # noqa: S101  asked for by PIPE
    with process.stdout:
        output = process.stdout.read(limit + 1)
    whole = len(output) <= limit
    if not whole:
        _end(process)
    process.wait()
    if writer.is_alive():
        writer.join()
    reader.join()
    return output[:limit], b"".join(errors), whole


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  asked for by PIPE
    try:
        with process.stdin:
            process.stdin.write(data)
    except OSError:
        return  # git has ended without reading all; its status says why


def _collect(process: subprocess.Popen[bytes], into: list[bytes]) -> None:
    assert process.stderr is not None  # noqa: S101  asked for by PIPE
    with process.stderr:
        while piece := os.read(process.stderr.fileno(), 65_536):
            into[:] = [(b"".join(into) + piece)[-8192:]]


def _end(process: subprocess.Popen[bytes], late: threading.Event | None = None) -> None:
    """Kill git and its children, if it is still there; `late` is set then."""
    if process.poll() is None:
        if late is not None:
            late.set()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _verb(arguments: Sequence[str]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")


def _last_line(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "no reason given"
