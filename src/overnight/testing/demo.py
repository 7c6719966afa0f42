"""`make run`: one job from goal to outcome on a server of its own, live, then the server stays up.

With an agent program and a key or login, that program works; without, the built-in agent: on a real model where there
is a key, else on a model that plays a script. `--agent codex` (or claude) fetches the pinned program from npm and lets
it talk to the scripted model server; `--agent sample` is a small program without any model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overnight.models.endpoint import KEY_VARIABLES
from overnight.testing.agents.install import AgentsUnavailable, install
from overnight.testing.demo_script import SCRIPT, for_builtin_agent
from overnight.testing.sample_workspace import GOAL, copy_to

KEYS = {
    "codex": ("OPENAI_API_KEY", ".codex/auth.json"),
    "claude": ("ANTHROPIC_API_KEY", ".claude/.credentials.json"),
}
"""For each program: the variable that holds a key, and the file of a login beneath the user's home."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which agent works, why, and what it needs: a table of configuration, and what else must run."""

    name: str
    words: str
    backend: str
    config: str
    model: str | None = None
    model_server: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def main() -> int:
    """Carry out the demo; the exit status is the run's with `--once`, else the server's."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument(
        "--agent", choices=("agent", "sample", "codex", "claude"), help="instead of what is found on PATH"
    )
    parser.add_argument("--once", action="store_true", help="end with the run")
    parser.add_argument("--folder", type=Path, help="where everything is kept (default: a fresh one)")
    asked = parser.parse_args()
    folder = _folder(asked.folder)
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(_model_server(folder)) if asked.agent in KEYS else ""
            choice = _choose(asked.agent, url, folder)
        except AgentsUnavailable as problem:
            return _say(f"demo: {problem}", 1)
        _say(f"demo: {choice.words}")
        return _serve_and_run(folder, choice, once=asked.once)


def _serve_and_run(folder: Path, choice: Choice, *, once: bool) -> int:
    environment = _environment(folder, choice)
    workspace = copy_to(folder / "workspace")
    _say(f"demo: the workspace is {workspace}, everything else is beside it")
    server = subprocess.Popen([sys.executable, "-m", "overnight", "up"], env=environment, cwd=folder)
    try:
        if not _ready(server, environment["OVERNIGHT_LISTEN"]):
            return _say("demo: the server did not start", server.wait() or 1)
        status = _run(environment, workspace, choice)
        if once:
            return status
        where = f"http://{environment['OVERNIGHT_LISTEN']}"
        _say(
            f"demo: the run has ended; the server stays up at {where} (log in with the link above; Ctrl-C ends it)"
        )
        return server.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        _end(server)


def _run(environment: Mapping[str, str], workspace: Path, choice: Choice) -> int:
    argv = [sys.executable, "-m", "overnight", "run", GOAL, "--backend", choice.backend]
    argv += ["--workspace", str(workspace), "--max-turns", "10"]
    argv += ["--model", choice.model] if choice.model else []
    return subprocess.run(argv, env=environment, cwd=workspace, check=False).returncode


def _choose(agent: str | None, model_url: str, folder: Path) -> Choice:
    if agent in KEYS:
        return _scripted(agent, model_url)
    if agent is None:
        for name, (variable, login) in KEYS.items():
            if shutil.which(name) and (os.environ.get(variable) or (Path.home() / login).is_file()):
                return _own(name, variable)
    return _sample() if agent == "sample" else _builtin(folder)


def _builtin(folder: Path) -> Choice:
    key = next(
        (
            variable
            for variables in KEY_VARIABLES.values()
            for variable in variables
            if os.environ.get(variable)
        ),
        None,
    )
    if key is not None:
        return Choice(
            name="agent", backend="agent", config="",
            words=f"the built-in agent works, on the usual model of whoever {key} belongs to",
        )  # fmt: skip
    script = folder / "model.json"
    script.write_text(json.dumps(for_builtin_agent()), encoding="utf-8")
    return Choice(
        name="agent", backend="agent",
        words="the built-in agent works, on a model that plays a script (no download, no key). With a provider's key, "
        "such as ANTHROPIC_API_KEY, a real model answers. `make run AGENT=codex` fetches the real Codex program from "
        "npm (about 400 MB, cached) and runs it against the project's own scripted model server",
        config=f'[models]\ndefault = "script:demo"\n[models.providers.script]\nkind = "scripted"\n'
        f"script = {json.dumps(str(script))}\n",
    )  # fmt: skip


def _sample() -> Choice:
    sample = Path(__file__).parent / "agents" / "sample_agent.py"
    command = json.dumps([sys.executable, str(sample)])
    return Choice(
        name="sample",
        backend="sample",
        words="the small sample agent works, without any model",
        config=f'[backends.sample]\nkind = "command"\ncommand = {command}\n',
    )


def _own(name: str, variable: str) -> Choice:
    key = os.environ.get(variable)
    lines = [f"[backends.{name}]", 'login = "none"' if key else 'login = "user"']
    if key:
        lines.append(f"environment = {{ {variable} = {json.dumps(key)} }}")
    return Choice(name=name, backend=name, words=f"{name} from PATH works, with your own key or login",
                  config="\n".join(lines) + "\n")  # fmt: skip


def _scripted(name: str, url: str) -> Choice:
    program = install((name,), say=_say)[name]  # type: ignore[arg-type,index]
    words = f"the real {name} program works, against the scripted model server at {url}"
    if name == "claude":
        table = f'environment = {{ ANTHROPIC_BASE_URL = "{url}", ANTHROPIC_API_KEY = "no-real-key" }}'
        model = "claude-sonnet-4-5"
    else:
        provider = f'name="scripted",base_url="{url}/v1",env_key="MODEL_KEY",wire_api="responses"'
        args = ["-c", 'model_provider="scripted"', "-c", f"model_providers.scripted={{{provider}}}"]
        table = f'environment = {{ MODEL_KEY = "no-real-key" }}\nargs = {json.dumps(args)}'
        model = "scripted-model"
    config = f'[backends.{name}]\nprogram = "{program}"\n{table}\n'
    return Choice(name=name, backend=name, words=words, config=config, model=model, model_server=True)


@contextlib.contextmanager
def _model_server(folder: Path) -> Iterator[str]:
    script = folder / "model.json"
    script.write_text(json.dumps(SCRIPT), encoding="utf-8")
    argv = [sys.executable, "-m", "overnight.testing.model_server", "--script", str(script), "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


def _environment(folder: Path, choice: Choice) -> dict[str, str]:
    config = folder / "overnight.toml"
    config.touch(mode=0o600)
    config.write_text(choice.config, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OVERNIGHT_")}
    return {
        **kept,
        "OVERNIGHT_CONFIG": str(config),
        "OVERNIGHT_DATA_DIR": str(folder / "data"),
        "OVERNIGHT_WORKSPACE_ROOTS": str(folder),
        "OVERNIGHT_LISTEN": f"127.0.0.1:{_port()}",
        "OVERNIGHT_LOG_LEVEL": os.environ.get("OVERNIGHT_LOG_LEVEL", "warning"),
    }


def _folder(asked: Path | None) -> Path:
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


def _ready(server: subprocess.Popen[bytes], listen: str) -> bool:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{listen}/readyz", timeout=2):
            return True
        time.sleep(0.02)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(15)


def _say(words: str, status: int = 0) -> int:
    sys.stderr.write(words + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
