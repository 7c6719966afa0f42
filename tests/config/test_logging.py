"""One sink: ids on every line, no secret, no control character, no line twice."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from overnight.config.logging import QUIET, configure
from overnight.domain.redaction import Redactor

SECRET = "hunter2-is-not-a-good-password"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for handler in root.handlers[:]:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ids_are_on_every_line_ours_and_the_libraries() -> None:
    out = io.StringIO()
    configure("info", "json", stream=out)
    with structlog.contextvars.bound_contextvars(run_id="run_x", worker_id="wrk_y"):
        structlog.get_logger("overnight.engine").info("run.claimed", token=3)
        logging.getLogger("somebody.else").warning("disk %s is %d%% full", "/", 93)
    structlog.get_logger("overnight.engine").info("run.released")
    ours, theirs, last = rows(out)
    assert (ours["event"], ours["token"], ours["run_id"], ours["worker_id"]) == (
        "run.claimed",
        3,
        "run_x",
        "wrk_y",
    )
    assert (ours["level"], ours["logger"]) == ("info", "overnight.engine")
    assert (theirs["event"], theirs["run_id"], theirs["logger"]) == (
        "disk / is 93% full",
        "run_x",
        "somebody.else",
    )
    assert list(ours)[:3] == ["timestamp", "level", "event"]
    assert "run_id" not in last


def test_secrets_do_not_get_through_in_any_place() -> None:
    out = io.StringIO()
    configure("debug", "json", redactor=Redactor([SECRET]), stream=out)
    log = structlog.get_logger("x")
    event = f"event {SECRET}"
    log.info(
        event,
        value=SECRET,
        nested={"deep": [SECRET, {SECRET: 1}]},
        pair=(SECRET,),
        path=Path(f"/{SECRET}"),
    )
    log.info("split", text=SECRET[:10] + "\x1b[0m" + SECRET[10:])
    log.info("pattern", header="Authorization: Bearer abcdefghijklmnopqrstuvwxyz")
    logging.getLogger("y").warning("foreign %s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("broke")
        logging.getLogger("y").exception("broke too")
    text = out.getvalue()
    assert SECRET not in text
    assert "abcdefghijklmnop" not in text
    assert len(rows(out)) == 6
    assert "ValueError" in rows(out)[4]["exception"]


def test_no_control_character_reaches_a_terminal_and_no_value_forges_a_line() -> None:
    out = Terminal()
    configure("info", "console", stream=out)
    evil = "x\x1b]0;title\x07\x9b2J\u202e\r\n2026-01-01 [error    ] forged line"
    structlog.get_logger("overnight").info("agent.said", text=evil, **{"key\x1b[2J\n": 1})
    logging.getLogger("y").warning(evil)
    text = out.getvalue()
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert not any(c in text for c in "\x07\x9b\u202e\r")
    assert len(text.splitlines()) == 2


def test_odd_values_do_not_lose_the_line() -> None:
    out = io.StringIO()
    configure("info", "json", stream=out)
    odd = {"big": 1 << 70, "lone": "\ud800", "nan": float("nan"), "obj": object(), "raw": b"\xff", "s": {1}}
    structlog.get_logger("x").info("odd", **odd)
    row = rows(out)[0]
    assert (row["event"], row["big"], row["nan"], row["s"]) == ("odd", str(1 << 70), None, [1])


def test_levels_and_quiet_libraries() -> None:
    out = io.StringIO()
    configure("info", "json", stream=out)
    structlog.get_logger("x").debug("too.small")
    for name in QUIET:
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble")
    assert {row["event"] for row in rows(out)} == {"trouble"}
    configure("error", "json", stream=out)
    logging.getLogger("uvicorn").warning("no longer")
    assert "no longer" not in out.getvalue()


def test_configuring_again_replaces_and_never_doubles(tmp_path: Path) -> None:
    first, second = io.StringIO(), io.StringIO()
    log = structlog.get_logger("x")
    logging.basicConfig()
    configure("info", "json", stream=first)
    log.info("one")
    for _ in range(3):
        configure("debug", "json", stream=second)
    log.debug("two")
    assert [row["event"] for row in rows(first)] == ["one"]
    assert [row["event"] for row in rows(second)] == ["two"]


def test_auto_is_console_on_a_terminal_and_json_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal, pipe = Terminal(), io.StringIO()
    configure(stream=terminal)
    structlog.get_logger("x").info("hello")
    configure(stream=pipe)
    structlog.get_logger("x").info("hello")
    assert "hello" in terminal.getvalue()
    assert "{" not in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()
    assert rows(pipe)[0]["event"] == "hello"


def test_a_file_is_private_json_and_survives_rotation(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    configure("info", "console", file)
    structlog.get_logger("x").info("one")
    file.rename(tmp_path / "server.log.1")
    structlog.get_logger("x").info("two")
    assert json.loads(file.read_text())["event"] == "two"
    assert json.loads((tmp_path / "server.log.1").read_text())["event"] == "one"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_closed_pipe_does_not_stop_the_program() -> None:
    script = (
        "import os, structlog\n"
        "from overnight.config.logging import configure\n"
        "configure('info', 'json')\n"
        "os.close(2)\n"
        "for _ in range(3): structlog.get_logger('x').info('nobody hears')\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"
