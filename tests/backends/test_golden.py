"""Captured outputs of the real programs decode to the same updates for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.codex.codec import CodexCodec
from overnight.backends.process.program import Codec, Exit
from overnight.domain.update import (
    Message,
    Reasoning,
    SessionKnown,
    ToolCompleted,
    ToolStarted,
    Update,
    UsageReported,
    Warned,
)
from overnight.domain.values import Usage

GOLDEN = Path(__file__).parent / "golden"
THREAD = "01a1fd5c-dacc-7061-bac9-4bbf5e9e0485"
COMMAND = "echo hello-from-mock > hello.txt && cat hello.txt"


def replay(codec: Codec, name: str) -> list[Update]:
    lines = (GOLDEN / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    updates = [update for line in lines for update in codec.stdout(line)]
    verdict = codec.finish(Exit(code=0))
    assert verdict.outcome.stop_reason == "end_turn"
    assert verdict.outcome.failure is None
    return [*updates, *verdict.updates]


def state(updates: list[Update]) -> dict[str, object]:
    return dict([update.state for update in updates if isinstance(update, SessionKnown)][-1])


def codex_totals(input: int) -> dict[str, object]:
    totals = {"input_tokens": input, "cached_input_tokens": input // 5, "output_tokens": input // 20}
    return {"thread_id": THREAD, "totals": totals | {"reasoning_output_tokens": input // 100}}


def test_codex() -> None:
    updates = replay(CodexCodec({}), "codex")
    shell = f"/bin/bash -lc '{COMMAND}'"
    zero = codex_totals(0)
    assert updates == [
        SessionKnown(state=zero),
        Warned(
            code="backend_warning",
            message="Model metadata for `mock-model` not found. Defaulting to fallback metadata; "
            "this can degrade performance and cause issues.",
            retryable=False,
        ),
        Reasoning(item_id="item_1", text="I should create the file with the shell."),
        Message(item_id="item_2", text="I'll create hello.txt."),
        ToolStarted(item_id="item_3", name="shell", arguments={"command": shell}, command=COMMAND),
        ToolCompleted(
            item_id="item_3", name="shell", ok=True, output="hello-from-mock\n", command=COMMAND, exit_code=0
        ),
        Message(item_id="item_4", text="DONE. hello.txt is written."),
        UsageReported(usage=Usage(input=2000, cached=400, output=100, reasoning=20)),
        SessionKnown(state=codex_totals(2000)),
    ]


def test_codex_resumed_counts_this_turn_only() -> None:
    before = state(replay(CodexCodec({}), "codex"))
    updates = replay(CodexCodec(before), "codex-resume")
    usages = [update.usage for update in updates if isinstance(update, UsageReported)]
    assert usages == [Usage(input=2000, cached=400, output=100, reasoning=20)]
    assert state(updates) == codex_totals(4000)


def test_codex_in_another_thread_counts_from_zero() -> None:
    updates = replay(CodexCodec({"thread_id": "another", "totals": {"input_tokens": 900}}), "codex")
    assert [u.usage.input for u in updates if isinstance(u, UsageReported)] == [2000]


@pytest.mark.parametrize("name", ["claude", "claude-resume"])
def test_claude(name: str) -> None:
    updates = replay(ClaudeCodec("/w"), name)
    kinds = [type(update) for update in updates]
    assert kinds == [
        SessionKnown, Reasoning, Message, ToolStarted, ToolCompleted, Message, UsageReported,
    ]  # fmt: skip
    assert state(updates) == {"session_id": "0b607edf-d158-48fd-8feb-e8543e3d1c63", "cwd": "/w"}
    texts = [update.text for update in updates if isinstance(update, Message | Reasoning)]
    assert texts == [
        "I should create the file with the shell.", "I'll create hello.txt.", "DONE. hello.txt is written.",
    ]  # fmt: skip
    started = next(update for update in updates if isinstance(update, ToolStarted))
    assert (started.name, started.command) == ("Bash", COMMAND)
    ended = next(update for update in updates if isinstance(update, ToolCompleted))
    assert ended == ToolCompleted(
        item_id=started.item_id, name="Bash", ok=True, output="hello-from-mock", command=COMMAND, exit_code=0
    )
    usages = [update.usage for update in updates if isinstance(update, UsageReported)]
    assert usages == [Usage(input=2000, cached=400, output=100, cost_usd=0.00642)]


@pytest.mark.parametrize("name", ["codex", "codex-resume", "claude", "claude-resume"])
def test_a_codec_that_replays_is_in_the_same_state(name: str) -> None:
    lines = (GOLDEN / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(len(lines) + 1):
        first, second = (ClaudeCodec("/w") if "claude" in name else CodexCodec({}) for _ in range(2))
        whole = [first.stdout(line) for line in lines]
        for line in lines[:cut]:
            second.stdout(line)
        assert [second.stdout(line) for line in lines[cut:]] == whole[cut:]
        assert first.finish(Exit(code=0)) == second.finish(Exit(code=0))
