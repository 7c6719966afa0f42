"""What Claude Code prints, and every way in which it ends."""

from __future__ import annotations

from typing import Any

import pytest
from tests.backends.feeding import failed, feed

from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.process.program import Exit
from overnight.domain.update import (
    Custom,
    Delta,
    FileTouched,
    LimitsReported,
    Message,
    PlanReported,
    SessionKnown,
    ToolCompleted,
    UsageReported,
    Warned,
)


def claude_result(**changes: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, "result": "fine", **changes}


CLAUDE_RESULTS = [
    (
        {"is_error": True, "api_error_status": 429, "result": "API Error: Request rejected (429)"},
        "rate_limited",
        True,
    ),
    ({"is_error": True, "api_error_status": 500, "result": "API Error: 500 x"}, "model_unavailable", True),
    ({"is_error": True, "api_error_status": 529, "result": "Overloaded"}, "model_unavailable", True),
    ({"is_error": True, "api_error_status": 401, "result": "Invalid API key"}, "unauthorized", False),
    ({"is_error": True, "api_error_status": 400, "result": "API Error: 400 x"}, "bad_request", False),
    ({"is_error": True, "result": "API Error: Failed to parse JSON"}, "bad_stream", True),
    (
        {"is_error": True, "result": "API Error: Connection to the API was lost (ECONNRESET)"},
        "stream_cut",
        True,
    ),
    ({"is_error": True, "result": "Prompt is too long"}, "context_exceeded", False),
    ({"subtype": "error_max_turns", "is_error": True, "result": None}, "error_max_turns", False),
    ({"subtype": "error_during_execution", "is_error": True, "result": None}, "error_during_execution", True),
    ({"subtype": "error_during_execution", "result": None}, "error_during_execution", True),
    ({"is_error": True, "result": "who knows"}, "turn_failed", True),
]


@pytest.mark.parametrize("changes, code, retryable", CLAUDE_RESULTS)
def test_claude_failures_are_honest_with_exit_status_0_too(
    changes: dict[str, Any], code: str, retryable: bool
) -> None:
    codec = ClaudeCodec("/w")
    feed(codec, claude_result(**changes))
    for exit in (Exit(code=1), Exit(code=0)):
        failure = failed(codec, exit)
        assert (failure.code, failure.retryable) == (code, retryable)


def test_claude_tells_when_a_limit_is_over() -> None:
    codec = ClaudeCodec("/w")
    feed(
        codec,
        {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1_790_000_000}},
    )
    feed(codec, claude_result(is_error=True, api_error_status=429, result="Request rejected (429)"))
    assert failed(codec, Exit(code=1)).retry_at == 1_790_000_000_000
    codec = ClaudeCodec("/w")
    feed(codec, claude_result(is_error=True, result="Claude AI usage limit reached|1790000001"))
    failure = failed(codec, Exit(code=1))
    assert (failure.code, failure.retryable, failure.retry_at) == ("usage_limit", True, 1_790_000_001_000)


@pytest.mark.parametrize("where", ["stderr", "result"])
def test_a_claude_that_has_lost_its_session_begins_anew(where: str) -> None:
    codec, words = ClaudeCodec("/w"), "No conversation found with session ID: x"
    if where == "stderr":
        codec.stderr(words.encode() + b"\n")
    else:
        feed(
            codec, claude_result(subtype="error_during_execution", is_error=True, result=None, errors=[words])
        )
    verdict = codec.finish(Exit(code=1))
    assert verdict.outcome.failure is not None
    assert verdict.outcome.failure.code == "session_lost"
    assert verdict.updates == (SessionKnown(state={}),)


def assistant(*blocks: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"id": "m", "model": "x", "content": list(blocks)}, **extra}


def tool_result(id: str, content: object, **extra: Any) -> dict[str, Any]:
    block = {
        "type": "tool_result",
        "tool_use_id": id,
        "content": content,
        "is_error": extra.pop("is_error", False),
    }
    return {"type": "user", "message": {"content": [block]}, **extra}


def tool_use(id: str, name: str, **given: Any) -> dict[str, Any]:
    return assistant({"type": "tool_use", "id": id, "name": name, "input": given})


def test_claude_tools() -> None:
    updates = feed(
        ClaudeCodec("/w"),
        tool_use("a", "Bash", command="exit 3"),
        tool_result("a", "Exit code 3\noops", is_error=True),
        tool_use("b", "Write", file_path="/w/new"),
        tool_result("b", [{"type": "text", "text": "written"}], tool_use_result={"type": "create"}),
        tool_use("c", "Edit", file_path="/w/old"),
        tool_result("c", "ok", tool_use_result={"type": "update"}),
        tool_use("d", "Read", file_path="/w/old"),
        tool_result("d", "text"),
        tool_use("e", "Write", file_path="/w/denied"),
        tool_result("e", "denied", is_error=True),
        tool_result("never-seen", "odd"),
    )
    completed = [update for update in updates if isinstance(update, ToolCompleted)]
    assert [(c.name, c.ok, c.exit_code) for c in completed] == [
        ("Bash", False, 3), ("Write", True, None), ("Edit", True, None), ("Read", True, None),
        ("Write", False, None), ("unknown", True, None),
    ]  # fmt: skip
    assert completed[1].output == "written"
    touched = [update for update in updates if isinstance(update, FileTouched)]
    assert [(t.path, t.kind) for t in touched] == [
        ("/w/new", "created"),
        ("/w/old", "modified"),
        ("/w/old", "read"),
    ]


def test_claude_words_of_errors_and_of_sub_agents_are_no_messages() -> None:
    synthetic = assistant({"type": "text", "text": "API Error: 500"})
    synthetic["message"]["model"] = "<synthetic>"
    child = assistant({"type": "text", "text": "sub"}, parent_tool_use_id="toolu_1")
    updates = feed(ClaudeCodec("/w"), synthetic, child)
    assert updates == [Custom(name="claude.subagent", data={"text": "sub"})]


def test_claude_deltas_belong_to_the_item_that_follows() -> None:
    def delta(index: int, **fields: str) -> dict[str, Any]:
        inner = {"type": "content_block_delta", "index": index, "delta": fields}
        return {"type": "stream_event", "event": inner}

    start = {"type": "stream_event", "event": {"type": "message_start", "message": {"id": "m"}}}
    updates = feed(
        ClaudeCodec("/w"),
        start,
        delta(0, type="thinking_delta", thinking="hm"),
        assistant({"type": "thinking", "thinking": "hm"}),
        delta(1, type="text_delta", text="he"),
        delta(1, type="text_delta", text="llo"),
        delta(1, type="input_json_delta", partial_json="{"),
        assistant({"type": "text", "text": "hello"}),
    )
    deltas = [update for update in updates if isinstance(update, Delta)]
    assert [(d.kind, d.item_id, d.offset, d.text) for d in deltas] == [
        ("reasoning", "m.0", 0, "hm"), ("message", "m.1", 0, "he"), ("message", "m.1", 2, "llo"),
    ]  # fmt: skip
    assert updates[-1] == Message(item_id="m.1", text="hello")


def test_claude_tells_limits_retries_and_plans() -> None:
    todo = tool_use("t", "TodoWrite", todos=[{"content": "a", "status": "in_progress"}])
    retry = {"type": "system", "subtype": "api_retry", "error_status": 500, "error": "server_error"}
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed", "resetsAt": 1}}
    updates = feed(ClaudeCodec("/w"), todo, retry, limit, {"type": "system", "subtype": "brand_new"})
    assert updates[1:] == [
        PlanReported(entries=({"text": "a", "status": "in_progress"},)),
        Warned(code="backend_retry", message="the model service answered 500: server_error; trying again"),
        LimitsReported(data={"status": "allowed", "resetsAt": 1}),
        Custom(name="claude.system.brand_new", data={"type": "system", "subtype": "brand_new"}),
    ]


def test_claude_usage_includes_what_came_from_the_cache() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "output_tokens": 3,
    }
    (update,) = feed(ClaudeCodec("/w"), claude_result(usage=usage, total_cost_usd=0.5))
    assert isinstance(update, UsageReported)
    assert (update.usage.input, update.usage.cached, update.usage.output) == (17, 5, 3)
    assert update.usage.cost_usd == 0.5
