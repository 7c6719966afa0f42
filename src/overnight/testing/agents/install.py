"""The real agent programs, pinned by lock files in `dev/agents/`, installed by npm into a cached folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

Name = Literal[
    "codex", "claude", "gemini", "codex-acp", "copilot", "acpx", "openai", "claude-acp", "opencode", "qwen"
]
NAMES: tuple[Name, ...] = get_args(Name)
USUAL: tuple[Name, ...] = ("codex", "claude", "gemini", "codex-acp", "copilot", "acpx", "openai")
"""Those that every test run drives; the others are slow or large. `acpx` and `openai` are clients of ours; `openai` is
a library, of which the file that describes it stands for the program.
"""

_LAUNCHERS: dict[Name, str] = {
    "gemini": "gemini",
    "codex-acp": "codex-acp",
    "copilot": "copilot",
    "acpx": "acpx",
    "claude-acp": "claude-agent-acp",
    "qwen": "qwen",
}
_PATIENT = ("--fetch-retries=5", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=20000")
"""A registry that stumbles once is asked again."""
_LOCKS = Path(__file__).resolve().parents[4] / "dev" / "agents"
_CPUS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_TRIPLES = {
    ("linux", "x64"): "x86_64-unknown-linux-musl",
    ("linux", "arm64"): "aarch64-unknown-linux-musl",
    ("darwin", "x64"): "x86_64-apple-darwin",
    ("darwin", "arm64"): "aarch64-apple-darwin",
}


class AgentsUnavailable(RuntimeError):
    """The programs cannot be installed here; the message says what is missing and how to mend it."""


def agents_folder() -> Path:
    """Where the programs are kept: `$OVERNIGHT_AGENTS_DIR`, else the user's cache folder.

    Never beneath the temporary directory, where Codex refuses to keep its helpers: then `/var/tmp`.
    """
    chosen = os.environ.get("OVERNIGHT_AGENTS_DIR")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(cache) / "overnight" / "agents"
    if _beneath(folder, Path(tempfile.gettempdir())) or _beneath(folder, Path("/tmp")):  # noqa: S108
        return Path(f"/var/tmp/overnight-{os.getuid()}/agents")  # noqa: S108  # made 0700 and checked below
    return folder


def program(name: Name) -> Path | None:
    """The program of that name, when the pinned version is installed: what npm would put on PATH for adapters that
    find the native program themselves, else the native program.
    """
    if not (_LOCKS / name).is_dir():
        return None
    found = _installed_folder(name) / _native(name)
    return found if found.is_file() else None


def programs() -> dict[Name, Path]:
    """All installed programs by name."""
    return {name: found for name in NAMES if (found := program(name)) is not None}


def install(names: tuple[Name, ...] = NAMES, say: Callable[[str], None] = lambda _: None) -> dict[Name, Path]:
    """Install what is missing and return the programs' paths. Safe to run at the same time elsewhere.

    Raises AgentsUnavailable when npm, the lock file or the network is missing.
    """
    for name in names:
        if program(name) is not None:
            say(f"agents: {name} is there: {program(name)}")
        else:
            _install_one(name, say)
    return {name: found for name in names if (found := program(name)) is not None}


def _install_one(name: Name, say: Callable[[str], None]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise AgentsUnavailable(
            f"npm is not on PATH, so {name} cannot be installed; install Node.js 20 or newer"
        )
    folder = _installed_folder(name)
    _private(folder.parent)
    with _locked(folder.with_suffix(".lock")):
        if program(name) is not None:
            say(f"agents: {name} has been installed meanwhile")
            return
        say(f"agents: installing {name} with npm into {folder} (once; some hundred MB)")
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            _npm_ci(npm, name, fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    say(f"agents: {name} is installed: {program(name)}")


def _npm_ci(npm: str, name: Name, folder: Path) -> None:
    for file in ("package.json", "package-lock.json"):
        shutil.copy(_lock_folder(name) / file, folder / file)
    shutil.copy(_LOCKS / ".npmrc", folder / ".npmrc")
    # Without install scripts: the native programs come as packages of their own, and nothing needs to run.
    argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", *_PATIENT]
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise AgentsUnavailable(f"npm could not install {name} (exit status {done.returncode}):\n{tail}")
    if not (folder / _native(name)).is_file():
        raise AgentsUnavailable(f"npm installed {name}, but it has no native program for {_platform()}")


def _native(name: Name) -> Path:
    system, cpu = _platform()
    if name in _LAUNCHERS:
        return Path("node_modules", ".bin", _LAUNCHERS[name])
    if name == "openai":
        return Path("node_modules", "openai", "package.json")
    if name == "opencode":
        return Path("node_modules", "opencode-linux-x64", "bin", "opencode")
    if name == "codex":
        triple = _TRIPLES.get((system, cpu), "unknown")
        return Path("node_modules", "@openai", f"codex-{system}-{cpu}", "vendor", triple, "bin", "codex")
    return Path("node_modules", "@anthropic-ai", f"claude-code-{system}-{cpu}{_libc()}", "claude")


def _platform() -> tuple[str, str]:
    machine = platform.machine().lower()
    return platform.system().lower(), _CPUS.get(machine, machine)


def _libc() -> str:
    return "-musl" if platform.system() == "Linux" and platform.libc_ver()[0] != "glibc" else ""


def _installed_folder(name: Name) -> Path:
    lock = _lock_folder(name) / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12] if lock.is_file() else "unlocked"
    return agents_folder() / f"{name}-{digest}"


def _lock_folder(name: Name) -> Path:
    folder = _LOCKS / name
    if not folder.is_dir():
        raise AgentsUnavailable(f"{folder} is missing: the pinned programs need a checkout of the project")
    return folder


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise AgentsUnavailable(
            f"{folder} belongs to somebody else; set OVERNIGHT_AGENTS_DIR to a folder of yours"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _beneath(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
