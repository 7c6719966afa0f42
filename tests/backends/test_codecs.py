"""Codecs against odd, broken and forged output, and every way in which a program ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.codex.codec import CodexCodec
from overnight.backends.command.codec import CommandCodec
from overnight.backends.process.program import Codec, Exit
from overnight.domain.update import (
    Custom,
    Delta,
    FileTouched,
    LimitsReported,
    Message,
    Output,
    PlanReported,
    SessionKnown,
    ToolCompleted,
    ToolStarted,
    Update,
    UsageReported,
    Warned,
)
from overnight.domain.values import Failure

MakeCodec = Callable[[], Codec]
CODECS: dict[str, MakeCodec] = {
    "codex": lambda: CodexCodec({}),
    "claude": lambda: ClaudeCodec("/w"),
    "command": CommandCodec,
}
every_codec = pytest.mark.parametrize("make", CODECS.values(), ids=CODECS.keys())


def line(event: object) -> bytes:
    return json.dumps(event).encode() + b"\n"


def feed(codec: Codec, *events: object) -> list[Update]:
    return [update for event in events for update in codec.stdout(line(event))]


def failed(codec: Codec, exit: Exit) -> Failure:
    outcome = codec.finish(exit).outcome
    assert outcome.stop_reason is None
    assert outcome.failure is not None
    return outcome.failure


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["type", "item", "usage", "error", "message", "content", "event", "subtype", "id", "result"]
)
CODEX_TYPES = [
    "thread.started",
    "turn.completed",
    "turn.failed",
    "item.started",
    "item.updated",
    "item.completed",
]
CLAUDE_TYPES = [
    "system",
    "assistant",
    "user",
    "stream_event",
    "result",
    "rate_limit_event",
    "error",
    "new.kind",
]
TYPES = st.sampled_from(CODEX_TYPES + CLAUDE_TYPES)
INNER = st.sampled_from(
    ["command_execution", "file_change", "todo_list", "mcp_tool_call", "text", "tool_use"]
)
events = st.dictionaries(KEYS, json_values | st.dictionaries(KEYS, json_values | INNER), max_size=5).flatmap(
    lambda found: TYPES.map(lambda kind: {**found, "type": kind})
)


@every_codec
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=60) | events.map(line), max_size=6))
def test_no_bytes_make_a_codec_raise(make: MakeCodec, lines: list[bytes]) -> None:
    codec = make()
    for data in lines:
        for found in (codec.stdout(data), codec.stderr(data)):
            assert all(isinstance(update, Update) for update in found)
    codec.finish(Exit(code=1))


@every_codec
@pytest.mark.parametrize(
    "data",
    [
        b"plain words\n",
        b"{not json}\n",
        b"[1, 2]\n",
        b'"text"\n',
        b"\xff\xfe\n",
        b"\n",
        b"no end",
        b'{"a": 1}\n',
    ],
)
def test_what_is_no_protocol_is_output(make: MakeCodec, data: bytes) -> None:
    assert make().stdout(data) == [Output(stream="stdout", data=data)]
    assert make().stderr(data) == [Output(stream="stderr", data=data)]


@every_codec
def test_sentinel_lines_are_output_for_the_engine_to_judge(make: MakeCodec) -> None:
    data = line({"__overnight__": {"type": "tests.started"}})
    assert make().stdout(data) == [Output(stream="stdout", data=data)]


@every_codec
def test_the_head_of_a_line_that_is_too_long_is_output(make: MakeCodec) -> None:
    head = b'{"type": "result", "is_error": false, "subtype": "success"}'
    assert make().stdout(head, 50_000_000) == [Output(stream="stdout", data=head, total=50_000_000)]


@pytest.mark.parametrize("make", [CODECS["codex"], CODECS["claude"]])
def test_unknown_events_are_kept_raw(make: MakeCodec) -> None:
    event = {"type": "brand.new", "payload": [1]}
    (update,) = feed(make(), event)
    assert isinstance(update, Custom)
    assert update.name.endswith(".brand.new")
    assert update.data == event


@pytest.mark.parametrize("make", [CODECS["codex"], CODECS["claude"]])
def test_exit_status_0_without_a_result_is_a_failure(make: MakeCodec) -> None:
    failure = failed(make(), Exit(code=0))
    assert (failure.code, failure.retryable) == ("agent_exit", False)


@pytest.mark.parametrize("make", CODECS.values())
def test_an_agent_that_was_killed_may_be_tried_again(make: MakeCodec) -> None:
    failure = failed(make(), Exit(signal=9))
    assert (failure.code, failure.retryable) == ("agent_killed", True)


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


def test_a_commands_answer_is_its_output_without_sentinels() -> None:
    codec = CommandCodec()
    for data in (b"first\n", line({"__overnight__": {"type": "x"}}), b"l\xc3\xa4st"):
        codec.stdout(data)
    verdict = codec.finish(Exit(code=0))
    assert verdict.updates == (Message(item_id="answer", text="first\nläst"),)
    assert verdict.outcome.stop_reason == "end_turn"


def test_of_a_long_answer_the_end_is_kept() -> None:
    codec = CommandCodec()
    for number in range(20_000):
        codec.stdout(b"line %d of many, with some words to make it long\n" % number)
    (answer,) = codec.finish(Exit(code=0)).updates
    assert isinstance(answer, Message)
    assert 60_000 < len(answer.text) <= 65_536
    assert answer.text.endswith("line 19999 of many, with some words to make it long")


@pytest.mark.parametrize("code, retryable", [(1, False), (75, True), (127, False)])
def test_a_commands_status_is_its_verdict(code: int, retryable: bool) -> None:
    codec = CommandCodec()
    codec.stderr(b"what went wrong\n")
    failure = failed(codec, Exit(code=code))
    assert (failure.code, failure.retryable) == ("agent_exit", retryable)
    assert "what went wrong" in failure.message
