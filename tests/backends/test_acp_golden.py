"""Captured conversations of the real programs decode to the same updates for ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overnight.backends.acp.catalogue import Name, acp_program
from overnight.backends.acp.codec import AcpCodec
from overnight.backends.acp.script import Script
from overnight.backends.process.program import Exit
from overnight.backends.process.settings import ProgramSettings
from overnight.clock import SystemClock
from overnight.domain.update import (
    Asked,
    FileTouched,
    Message,
    Reasoning,
    ToolCompleted,
    ToolStarted,
    Update,
    UsageReported,
)
from overnight.domain.values import Usage
from overnight.testing.bare_turn import turn_start

GOLDEN = Path(__file__).parent / "golden"
LINE = "echo hi > a.txt; cat a.txt; exit 3"
NAMES: tuple[Name, ...] = ("gemini", "codex-acp", "copilot", "claude-acp", "opencode", "qwen")


def codec_of(name: Name, folder: Path) -> AcpCodec:
    """As the program would make it for the workspace in which the conversation was captured."""
    program = acp_program(name, ProgramSettings(name=name), SystemClock())
    start = replace(turn_start(folder, approval_policy="ask_all"), workspace=Path("/workspace"))
    return program.codec(start)


def replay(codec: AcpCodec, name: str) -> list[Update]:
    lines = (GOLDEN / f"acp-{name}.jsonl").read_bytes().splitlines(keepends=True)
    updates = [update for line in lines for update in codec.stdout(line)]
    closing = codec.finish(Exit(code=0))
    assert (closing.outcome.stop_reason, closing.outcome.failure) == ("end_turn", None)
    return [*updates, *closing.updates]


def of(updates: list[Update], kind: type[Any]) -> list[Any]:
    return [update for update in updates if isinstance(update, kind)]


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_turn(name: Name, tmp_path: Path) -> None:
    updates = replay(codec_of(name, tmp_path), name)
    said = [message.text for message in of(updates, Message)]
    assert said[-3:] == ["I write it.", "A file.", "DONE."]
    assert [reasoning.text.removeprefix("****\n") for reasoning in of(updates, Reasoning)] == ["Think."]
    assert of(updates, ToolStarted)[0].command == LINE
    shell: ToolCompleted = of(updates, ToolCompleted)[0]
    assert (shell.command, shell.exit_code, shell.ok) == (
        LINE,
        *((None, True) if name == "gemini" else (3, False)),
    )
    first = of(updates, Asked)[0]
    assert (first.action.kind, first.action.command, first.answers) == ("execute", LINE, ())


USAGE: dict[Name, Usage | None] = {
    "gemini": Usage(input=3000, output=120),
    "codex-acp": None,
    "copilot": Usage(input=3000, cached=600, output=150, reasoning=30),
    "claude-acp": Usage(input=3000, cached=600, output=150, cost_usd=0.01272),
    "opencode": None,
    "qwen": Usage(input=3000, cached=600, output=150, reasoning=30),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_usage_of_a_captured_turn(name: Name, tmp_path: Path) -> None:
    reported = of(replay(codec_of(name, tmp_path), name), UsageReported)
    assert (reported[-1].usage if reported else None) == USAGE[name]


@pytest.mark.parametrize("name", ["gemini", "claude-acp", "opencode", "qwen"])
def test_an_edit_shows_what_would_be_written(name: Name, tmp_path: Path) -> None:
    updates = replay(codec_of(name, tmp_path), name)
    (edit,) = (asked for asked in of(updates, Asked) if asked.item_id and asked.action.kind == "edit")
    assert edit.action.paths == ("/workspace/b.txt",)
    assert [change.after for change in edit.action.edits] == ["hello\n"]
    assert FileTouched(path="/workspace/b.txt", kind="created") in updates


def test_cached_input_and_thoughts_are_counted_once() -> None:
    """Which numbers are within which is told by the total alone."""
    base = {"inputTokens": 800, "outputTokens": 40, "cachedReadTokens": 200, "thoughtTokens": 10}
    for total, wanted in (
        (1050, Usage(input=1000, cached=200, output=50, reasoning=10)),
        (1040, Usage(input=1000, cached=200, output=40, reasoning=10)),
        (850, Usage(input=800, cached=200, output=50, reasoning=10)),
        (840, Usage(input=800, cached=200, output=40, reasoning=10)),
    ):
        codec = AcpCodec(Script(workspace="/w", prompt="x"))
        lines: list[dict[str, Any]] = [
            {"id": 1, "result": {"protocolVersion": 1}},
            {"id": 2, "result": {"sessionId": "s"}},
            {"id": 3, "result": {"stopReason": "end_turn", "usage": base | {"totalTokens": total}}},
        ]
        updates = [update for line in lines for update in codec.stdout(_line(line))]
        assert [reported.usage for reported in of(updates, UsageReported)] == [wanted]


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()
