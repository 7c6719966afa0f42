"""The command line itself: quick help, exit statuses, words on stderr, and nothing loaded that is not needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overnight.cli import exits
from overnight.cli.app import COMMANDS, root
from overnight.errors import ConfigInvalid, Conflict, DataInUse, InvalidPattern, NotFound, Unreachable

HEAVY = (
    "alembic", "asyncio", "fastapi", "httpx2", "orjson", "psutil", "pydantic", "re2", "rich", "sqlalchemy",
    "starlette", "structlog", "uvicorn", "uvloop", "watchfiles", "overnight.client", "overnight.compose",
    "overnight.domain.spec", "overnight.engine", "overnight.server", "overnight.stores",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which nothing of ours has ever run."""
    (tmp_path / "run").mkdir(mode=0o700)
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def overnight(here: dict[str, str], *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "overnight", *arguments],
        env=here, cwd=here["HOME"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=100,
        **options,
    )  # fmt: skip


def test_help_loads_nothing_heavy(here: dict[str, str]) -> None:
    script = (
        "import sys, overnight.cli.app as app\n"
        "sys.argv = ['overnight', '--help']\n"
        "try: app.run()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not found, found\n"
        "assert not [n for n in sys.modules if n.startswith('overnight.cli.') and n.rpartition('.')[2] not in\n"
        "            ('app', 'exits', 'output')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_each_command_says(name: str) -> None:
    command = root().commands[name]
    said = command.help.split("\n\n")[0].replace("\n", " ").strip()
    assert said == COMMANDS[name].summary
    assert command.name == name


BAD_USAGE = [
    ["acp", "extra"], ["acp", "--nonsense"], ["models", "a", "b"],
    ["agent", "extra"], ["agent", "--mode", "yolo"], ["agent", "--effort", "x"],
    ["approvals", "--limit", "0"], ["approve"], ["approve", "x", "--limits", "tokens"], ["deny"], ["answer", "x"],
    ["up", "--slots", "0"], ["up", "--exit-when-idle", "soon"], ["up", "extra"], ["up", "--listen", "nowhere"],
    ["up", "--listen", "0.0.0.0:1"],
    ["run"], ["run", "goal", "--max-turns", "0"], ["run", "goal", "--budget", "much"], ["run", "goal", "--env", "A"],
    ["run", "goal", "--workspace", "/nonexistent/x"], ["run", "goal", "--label", "=x"],
    ["run", "goal", "--budget", "0usd"],
    ["ls", "--limit", "0"], ["ls", "x"], ["show"], ["show", "x", "--prompt", "0"], ["watch", "x", "y"],
    ["logs"], ["logs", "x", "--raw"], ["logs", "x", "--after", "-1"], ["diff"],
    ["diff", "x", "--turn", "1", "--uncommitted"], ["pause"], ["resume", "x", "--budget", "5"], ["cancel"],
    ["steer", "x"], ["retry"], ["backends", "nothing"], ["doctor", "x"], ["db"], ["db", "nothing"], ["db", "backup"],
    ["config"], ["config", "edit"], ["token"], ["token", "new"], ["token", "new", "x", "--expires", "never"],
    ["sessions"], ["sessions", "show"], ["sessions", "new", "x", "--config", "=1"], ["sessions", "ls", "--limit", "0"],
    ["chat", "last", "--backend", "echo"], ["chat", "a", "b"], ["handover", "now"], ["nothing"], [],
    ["worker", "extra"], ["worker", "--slots", "0"], ["workers", "drain"], ["workers", "nothing"],
    ["tools"], ["tools", "serve"], ["tools", "call"], ["tools", "call", "x", "{", "--timeout", "soon"],
    ["upgrade", "extra"], ["upgrade", "--within", "soon"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", BAD_USAGE, ids=" ".join)
def test_bad_usage_is_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch, here: dict[str, str]) -> None:
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((SystemExit, ConfigInvalid)) as caught:
        root()(arguments, prog_name="overnight")
    error = caught.value
    assert (exits.status(error) if isinstance(error, ConfigInvalid) else getattr(error, "code", None)) == 2


def test_every_command_is_tried_with_bad_usage() -> None:
    assert {arguments[0] for arguments in BAD_USAGE if arguments} >= set(COMMANDS)


@pytest.mark.parametrize(
    "name",
    [
        "ls",
        "handover",
        "backends",
        "token list",
        "show last",
        "cancel last",
        "watch",
        "approvals",
        "deny last",
        "sessions ls",
    ],
)
def test_no_server_is_4(here: dict[str, str], name: str) -> None:
    done = overnight(here, *name.split())
    assert (done.returncode, done.stdout) == (4, "")
    assert "no server serves" in done.stderr
    assert "overnight up" in done.stderr


def test_settings_that_make_no_sense_are_2_and_named(here: dict[str, str]) -> None:
    done = overnight(here | {"OVERNIGHT_SLOTS": "many"}, "ls")
    assert done.returncode == 2
    assert "OVERNIGHT_SLOTS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_named_needs_a_token(here: dict[str, str]) -> None:
    done = overnight(here | {"OVERNIGHT_URL": "http://127.0.0.1:9"}, "ls")
    assert (done.returncode, "set OVERNIGHT_TOKEN" in done.stderr) == (2, True)
    done = overnight(here | {"OVERNIGHT_URL": "http://127.0.0.1:9", "OVERNIGHT_TOKEN": "t" * 40}, "ls")
    assert (done.returncode, "does not answer" in done.stderr) == (4, True)
    done = overnight(here | {"OVERNIGHT_URL": "127.0.0.1:9", "OVERNIGHT_TOKEN": "t" * 40}, "ls")
    assert (done.returncode, "is not the URL of a server" in done.stderr) == (2, True)


def test_nothing_in_the_current_directory_is_imported(here: dict[str, str]) -> None:
    canary = Path(here["HOME"]) / "canary"
    for name in ("typer", "asyncio", "overnight", "sitecustomize"):
        (Path(here["HOME"]) / f"{name}.py").write_text(f"open({str(canary)!r}, 'w')\n")
    script = Path(sys.executable).parent / "overnight"
    subprocess.run([str(script), "ls"], env=here, cwd=here["HOME"], capture_output=True, check=False)
    assert not canary.exists()


def test_config_show_is_one_object_a_line(here: dict[str, str]) -> None:
    import json

    done = overnight(here | {"OVERNIGHT_SLOTS": "3"}, "config", "show", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"key": "worker.slots", "value": 3, "origin": "environment OVERNIGHT_SLOTS"} in rows


def test_each_error_has_its_status() -> None:
    assert exits.status(DataInUse()) == 3
    assert exits.status(Unreachable()) == 4
    assert exits.status(ConfigInvalid()) == 2
    assert exits.status(InvalidPattern()) == 2
    assert exits.status(NotFound()) == 1
    assert exits.status(Conflict()) == 1


def test_field_errors_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"in": "body", "path": "limits.turns", "message": "must be positive\x1b[31m"}]
    assert exits.report(InvalidPattern("bad", mend="mend it", extra={"errors": errors})) == 2
    assert capsys.readouterr().err == "overnight: bad\n  limits.turns: must be positive\n  mend it\n"


def test_a_field_error_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"in": "body", "path": "goal", "message": "too short"}]
    exits.report(InvalidPattern("goal: too short", extra={"errors": errors}))
    assert capsys.readouterr().err == "overnight: goal: too short\n"


def test_every_command_that_answers_can_answer_in_json() -> None:
    def leaves(group: Any) -> list[Any]:
        found = [group.commands[name] for name in group.commands]
        return [leaf for one in found for leaf in (leaves(one) if hasattr(one, "commands") else [one])]

    without = [
        leaf.name for leaf in leaves(root()) if not any("--json" in param.opts for param in leaf.params)
    ]
    assert without == ["up", "worker", "acp", "agent"], "two never answer, two answer in a protocol"


@pytest.mark.parametrize("arguments", ["config show", "config show >&-", "config show 2>&-", "ls >&- 2>&-"])
def test_whoever_closes_a_stream_hears_no_traceback(here: dict[str, str], arguments: str) -> None:
    script = f"{sys.executable} -m overnight {arguments} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=here, cwd=here["HOME"], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode in {0, 1, 4}) == ("file: none\n" if done.stderr else "", True)


@pytest.mark.parametrize("where", ["file", "beneath"])
def test_a_data_directory_that_cannot_be_is_named(here: dict[str, str], where: str) -> None:
    (Path(here["HOME"]) / "file").write_text("")
    data = str(Path(here["HOME"]) / "file") + ("/data" if where == "beneath" else "")
    for command in (["up"], ["run", "hi", "--backend", "echo"]):
        done = overnight(here | {"OVERNIGHT_DATA_DIR": data, "OVERNIGHT_LISTEN": "127.0.0.1:0"}, *command)
        assert done.returncode == 2, done.stderr
        assert data in done.stderr
        assert "Errno" not in done.stderr
    done = overnight(here | {"OVERNIGHT_DATA_DIR": data}, "doctor")
    assert (done.returncode, "fail" in done.stdout) == (1, True), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_whole(here: dict[str, str], shell: str) -> None:
    shown = overnight(here | {"_OVERNIGHT_COMPLETE": f"source_{shell}"})
    assert shown.returncode == 0, shown.stderr
    assert "_OVERNIGHT_COMPLETE" in shown.stdout
    if shell == "bash":
        checked = subprocess.run(
            ["bash", "-n"], input=shown.stdout, text=True, check=False, capture_output=True
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_completion_knows_commands_and_options(here: dict[str, str]) -> None:
    def completed(words: str) -> list[str]:
        environment = here | {
            "_OVERNIGHT_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        return overnight(environment).stdout.split()

    assert completed("overnight r") == ["run", "resume", "retry"]
    assert "--budget" in completed("overnight run --bu")
    assert completed("overnight show ") == []
