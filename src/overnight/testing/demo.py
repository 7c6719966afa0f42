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
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overnight.models.endpoint import KEY_VARIABLES
from overnight.testing.agents.install import AgentsUnavailable, install
from overnight.testing.demo_script import SCRIPT, for_builtin_agent
from overnight.testing.demo_server import end, environment, fresh_folder, is_ready, say
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
    folder = fresh_folder(asked.folder)
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(_model_server(folder)) if asked.agent in KEYS else ""
            choice = _choose(asked.agent, url, folder)
        except AgentsUnavailable as problem:
            return say(f"demo: {problem}", 1)
        say(f"demo: {choice.words}")
        return _serve_and_run(folder, choice, once=asked.once)


def _serve_and_run(folder: Path, choice: Choice, *, once: bool) -> int:
    variables = environment(folder, choice.config)
    workspace = copy_to(folder / "workspace")
    say(f"demo: the workspace is {workspace}, everything else is beside it")
    server = subprocess.Popen([sys.executable, "-m", "overnight", "up"], env=variables, cwd=folder)
    try:
        if not is_ready(server, variables["OVERNIGHT_LISTEN"]):
            return say("demo: the server did not start", server.wait() or 1)
        status = _run(variables, workspace, choice)
        if once:
            return status
        where = f"http://{variables['OVERNIGHT_LISTEN']}"
        say(
            f"demo: the run has ended; the server stays up at {where} (log in with the link above; Ctrl-C ends it)"
        )
        return server.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        end(server)


def _run(variables: Mapping[str, str], workspace: Path, choice: Choice) -> int:
    argv = [sys.executable, "-m", "overnight", "run", GOAL, "--backend", choice.backend]
    argv += ["--workspace", str(workspace), "--max-turns", "10"]
    argv += ["--model", choice.model] if choice.model else []
    return subprocess.run(argv, env=variables, cwd=workspace, check=False).returncode


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
    program = install((name,), say=say)[name]  # type: ignore[arg-type,index]
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


if __name__ == "__main__":
    sys.exit(main())
