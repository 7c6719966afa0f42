"""All codecs against odd, broken and forged output, and the codec of plain commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.backends.feeding import failed, feed, line

from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.codex.codec import CodexCodec
from overnight.backends.command.codec import CommandCodec
from overnight.backends.process.program import Codec, Exit
from overnight.domain.update import (
    Custom,
    Message,
    Output,
    Update,
)

MakeCodec = Callable[[], Codec]
CODECS: dict[str, MakeCodec] = {
    "codex": lambda: CodexCodec({}),
    "claude": lambda: ClaudeCodec("/w"),
    "command": CommandCodec,
}
every_codec = pytest.mark.parametrize("make", CODECS.values(), ids=CODECS.keys())


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
