"""What Overnight adds to the real Codex program: the same turns with the same model, bare and through a server."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import Server

from bench import stage
from bench.figure import Figure
from overnight.backends.codex.backend import CodexProgram
from overnight.backends.process.settings import ProgramSettings
from overnight.clock import SystemClock
from overnight.domain.spec import Sandbox
from overnight.testing.agents.install import program
from overnight.testing.bare_turn import turn_start
from overnight.testing.model_server import ModelServer

ROUNDS = 5
MODEL = "scripted-model"
SANDBOX: Sandbox = "full_access"
"""The same for both: its own sandbox costs Codex time too."""
CALLS = [{"tool": "shell", "arguments": {"command": f"echo {n} > file-{n}; sleep 0.1"}} for n in range(8)]
TURN = [*CALLS, {"text": "Done."}]


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    binary = program("codex")
    if binary is None:
        raise RuntimeError("the real Codex is not installed here: make agents")
    with ModelServer(TURN) as model:
        provider = f'name="scripted",base_url="{model.url}/v1",env_key="MODEL_KEY",wire_api="responses"'
        args = ("-c", 'model_provider="scripted"', "-c", f"model_providers.scripted={{{provider}}}")
        table = f'environment = {{ MODEL_KEY = "none" }}\nargs = {json.dumps(args)}'
        with stage.server(config=f'[backends.codex]\nprogram = "{binary}"\n{table}\n') as server:
            settings = ProgramSettings(
                name="codex", program=binary, args=args, environment={"MODEL_KEY": "none"}, host=os.environ
            )
            codex = CodexProgram(settings, SystemClock())
            _through_overnight(server), _bare(codex, server.root)
            yield from _paired(codex, server)


def _paired(codex: CodexProgram, server: Server) -> Iterator[Figure]:
    pairs = [(_through_overnight(server), _bare(codex, server.root)) for _ in range(ROUNDS)]
    ours, least = (statistics.median(column) for column in zip(*pairs, strict=True))
    yield Figure(
        name=f"a turn of Codex with {len(CALLS)} quick calls",
        value=ours,
        unit="s",
        limit=least,
        limit_name="bare Codex",
        aim="≤ 1.05 ×",
    )
    added = statistics.median(one - other for one, other in pairs)
    yield Figure(name="of which Overnight's", value=1000 * added, unit="ms")


def _through_overnight(server: Server) -> float:
    """From the submission to the end of the run, its workspace compared and all of it recorded."""
    work = server.workspace(f"w{time.time_ns()}")
    begun = time.perf_counter()
    run = server.submit(
        "codex", goal="Do it.", mode="oneshot", model=MODEL, sandbox=SANDBOX, workspace=str(work)
    )
    with server.http.stream("GET", f"/api/v1/runs/{run['id']}/stream") as answer:
        for _ in answer.iter_lines():
            pass
    seconds = time.perf_counter() - begun
    if server.run(run["id"])["state"] != "completed":
        raise RuntimeError("the run did not complete")
    return seconds


def _bare(codex: CodexProgram, root: Path) -> float:
    """The same command line and environment, with nobody in between."""
    start = turn_start(root / f"bare-{time.time_ns()}", model=MODEL, sandbox=SANDBOX)
    command = codex.command(start)
    begun = time.perf_counter()
    subprocess.run(
        command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        input=command.stdin,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begun
