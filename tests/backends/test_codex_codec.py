"""What Codex prints, and every way in which it ends."""

from __future__ import annotations

import pytest
from tests.backends.feeding import failed, feed

from overnight.backends.codex.codec import CodexCodec
from overnight.backends.process.program import Exit
from overnight.domain.update import (
    FileTouched,
    PlanReported,
    SessionKnown,
    ToolCompleted,
    ToolStarted,
    Warned,
)

CODEX_MESSAGES = [
    ("exceeded retry limit, last status: 429 Too Many Requests", "rate_limited", True),
    ("We\u2019re currently experiencing high demand, which may cause temporary errors.", "model_unavailable", True),
    ('unexpected status 401 Unauthorized: {"error": {}}, url: http://x/v1/responses', "unauthorized", False),
    ("unexpected status 400 Bad Request: no", "bad_request", False),
    ("unexpected status 503 Service Unavailable: later", "model_unavailable", True),
    ("stream disconnected before completion: stream closed before response.completed", "stream_cut", True),
    ("stream disconnected before completion: Transport error: network error: error decoding response body",
     "stream_cut", True),
    ("Your input exceeds the context window of this model", "context_exceeded", False),
    ("You've hit your usage limit. Try again later.", "usage_limit", True),
    ("something that nobody has seen", "turn_failed", True),
]  # fmt: skip


@pytest.mark.parametrize("message, code, retryable", CODEX_MESSAGES)
def test_codex_failures_are_honest(message: str, code: str, retryable: bool) -> None:
    codec = CodexCodec({})
    feed(codec, {"type": "turn.started"}, {"type": "turn.failed", "error": {"message": message}})
    for exit in (Exit(code=1), Exit(code=0)):
        failure = failed(codec, exit)
        assert (failure.code, failure.retryable) == (code, retryable)
        assert failure.message == message


def test_a_codex_that_has_lost_its_thread_begins_anew() -> None:
    codec = CodexCodec({"thread_id": "gone"})
    codec.stderr(b"Error: thread/resume: thread/resume failed: no rollout found for thread id gone\n")
    verdict = codec.finish(Exit(code=1))
    assert verdict.outcome.failure is not None
    assert (verdict.outcome.failure.code, verdict.outcome.failure.retryable) == ("session_lost", True)
    assert verdict.updates == (SessionKnown(state={}),)


def test_codex_success_counts_even_when_the_process_ends_badly_afterwards() -> None:
    codec = CodexCodec({})
    feed(codec, {"type": "turn.completed", "usage": {"input_tokens": 1}})
    assert codec.finish(Exit(signal=15)).outcome.stop_reason == "end_turn"


def test_codex_cut_off_in_its_turn_may_be_tried_again() -> None:
    codec = CodexCodec({})
    feed(codec, {"type": "turn.started"})
    codec.stderr(b"thread 'main' panicked\n")
    failure = failed(codec, Exit(code=101))
    assert (failure.code, failure.retryable) == ("agent_exit", True)
    assert "panicked" in failure.message


def test_codex_items() -> None:
    changes = [{"path": f"/w/{kind}", "kind": kind} for kind in ("add", "update", "delete")]
    patch = {"id": "i1", "type": "file_change", "changes": changes, "status": "completed"}
    updates = feed(
        CodexCodec({}),
        {"type": "item.started", "item": {**patch, "status": "in_progress"}},
        {"type": "item.completed", "item": patch},
        {"type": "item.completed", "item": {**patch, "status": "failed"}},
        {
            "type": "item.updated",
            "item": {"id": "i2", "type": "todo_list", "items": [{"text": "a", "completed": True}]},
        },
        {
            "type": "item.completed",
            "item": {"id": "i3", "type": "mcp_tool_call", "server": "s", "tool": "t", "status": "failed"},
        },
        {"type": "error", "message": "Reconnecting... 1/2"},
    )
    assert [type(update) for update in updates] == [
        ToolStarted, FileTouched, FileTouched, FileTouched, ToolCompleted, ToolCompleted, PlanReported,
        ToolCompleted, Warned,
    ]  # fmt: skip
    kinds = [update.kind for update in updates if isinstance(update, FileTouched)]
    assert kinds == ["created", "modified", "deleted"]
    assert updates[5] == ToolCompleted(item_id="i1", name="apply_patch", ok=False)
    assert updates[7] == ToolCompleted(item_id="i3", name="s.t", ok=False)


def test_codex_commands_that_fail_tell_their_status() -> None:
    item = {"id": "i", "type": "command_execution", "command": "false", "aggregated_output": "oops\n"}
    (update,) = feed(
        CodexCodec({}), {"type": "item.completed", "item": {**item, "exit_code": 3, "status": "failed"}}
    )
    assert update == ToolCompleted(
        item_id="i", name="shell", ok=False, output="oops\n", command="false", exit_code=3
    )


SHELL_LINES = [
    ("/bin/bash -lc 'ls -l'", "ls -l"),
    ('/usr/bin/zsh -lc "echo \\"hi\\""', 'echo "hi"'),
    ("bash -c ls", "ls"),
    ("/bin/bash -lc 'unfinished", "/bin/bash -lc 'unfinished"),
    ("python3 -m unittest", "python3 -m unittest"),
    ("/bin/bash -lc a b", "/bin/bash -lc a b"),
]


@pytest.mark.parametrize("reported, shown", SHELL_LINES)
def test_codex_commands_are_shown_as_the_model_gave_them(reported: str, shown: str) -> None:
    item = {"id": "i", "type": "command_execution", "command": reported}
    (update,) = feed(CodexCodec({}), {"type": "item.started", "item": item})
    assert update == ToolStarted(item_id="i", name="shell", arguments={"command": reported}, command=shown)
