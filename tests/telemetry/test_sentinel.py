"""Sentinels: what an agent may claim, and what it may not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.event import TYPES, Draft, encode
from overnight.domain.sentinel import BadSentinel, parse
from overnight.domain.update import UsageReported
from overnight.domain.values import Usage


def _line(body: object, key: str = "__overnight__") -> bytes:
    return json.dumps({key: body}).encode() + b"\n"


def _draft(body: object, key: str = "__overnight__") -> Draft:
    found = parse(_line(body, key))
    assert isinstance(found, Draft), found
    return found


@pytest.mark.parametrize(
    "body, type, data",
    [
        ({"type": "file.written", "path": "a.py", "bytes": 3, "sha256": "a" * 64},
         "file.written", {"path": "a.py", "bytes": 3, "sha256": "a" * 64, "kind": "modified"}),
        ({"type": "file_written", "path": "a", "kind": "created", "addedLines": "4"},
         "file.written", {"path": "a", "kind": "created", "added_lines": 4}),
        ({"type": "fileRead", "path": "a", "bytes": 1}, "file.read", {"path": "a", "bytes": 1}),
        ({"type": "file_deleted", "path": "a"}, "file.deleted", {"path": "a"}),
        ({"type": "question.asked", "text": "why?"}, "question.asked", {"text": "why?"}),
        ({"type": "testRunStarted", "command": "pytest"}, "tests.started", {"command": "pytest"}),
        ({"type": "test_run_completed", "command": "x", "exitCode": 1, "durationMs": 12,
          "summary": {"passed": 3, "failed": 1, "skipped": 0}},
         "tests.completed", {"command": "x", "exit_code": 1, "duration_ms": 12, "passed": 3, "failed": 1}),
        ({"type": "tests.completed", "passed": 1}, "tests.completed", {"passed": 1, "failed": 0, "exit_code": None}),
        ({"type": "log_updated", "kind": "codys-log", "path": "L",
          "delta": {"addedBytes": 5, "addedLines": 1, "tail": "t"}},
         "log.updated", {"kind": "work", "path": "L", "added_bytes": 5, "added_lines": 1, "tail": "t"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["__overnight__", "__cody_event__"])
def test_known_claims_become_events_marked_as_the_agents(
    body: dict[str, object], type: str, data: dict[str, object], key: str
) -> None:
    found = _draft(body, key)
    assert found.type == type
    assert data.items() <= found.data.items()
    assert found.data["source"] == "agent"


@pytest.mark.parametrize(
    "body, usage",
    [
        ({"type": "token_usage", "inputTokens": 10, "outputTokens": "5"}, Usage(input=10, output=5)),
        ({"type": "tokenUsage", "prompt_tokens": 10, "totalTokens": 12}, Usage(input=10, output=2)),
        ({"type": "usage.recorded", "output": 5, "total": 7.0}, Usage(input=2, output=5)),
        ({"type": "usage.recorded", "total": 7}, Usage(input=7)),
        ({"type": "usage.recorded", "input": 9, "cached": 4, "output": 3, "reasoning": 99, "cost_usd": 0.5},
         Usage(input=9, cached=4, output=3, reasoning=3, cost_usd=0.5)),
    ],
)  # fmt: skip
def test_usage_in_its_spellings(body: object, usage: Usage) -> None:
    assert parse(_line(body)) == UsageReported(usage=usage, source="agent")


@pytest.mark.parametrize(
    "type", ["run.completed", "turn.completed", "approval.resolved", "lease", "Approve", "run_completed"]
)
def test_other_types_are_custom_and_move_nothing(type: str) -> None:
    found = _draft({"type": type, "seq": 1, "run_id": "run_x", "ts": 5, "turn": 9, "detail": {"a": 1}})
    assert found == Draft(type="agent.custom", data={"name": type, "data": {"detail": {"a": 1}}})


def test_the_envelope_is_never_the_agents() -> None:
    found = _draft(
        {"type": "question.asked", "text": "t", "seq": 99, "at": "1970", "source": "backend", "attempt": 3}
    )
    body = json.loads(encode(found, seq=1, run_id="run_a", session_id=None, at=0))
    assert (body["seq"], body["run_id"], body["turn"], body["data"]) == (
        1,
        "run_a",
        None,
        {"text": "t", "source": "agent"},
    )


@pytest.mark.parametrize(
    "line",
    [b"plain __overnight__ text", b'"__overnight__"', b"[{}]", b'{"overnight": 1}', b"", b"{}",
     b'{"a": "__overnight__"}',
     b'{"data": {"__overnight__": {"type": "x"}}}'],
)  # fmt: skip
def test_other_lines_are_no_sentinels(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    "line",
    [b'{"__overnight__": ', b'{"__overnight__": 1}', b'{"__overnight__": {}}', b'{"__overnight__": {"type": " "}}',
     b'{"__overnight__": {"type": 3}}', b'{"__overnight__": {"type": "file.written"}}',
     b'{"__overnight__": {"type": "file.written", "path": "a\\u0000b"}}',
     b'{"__overnight__": {"type": "file.written", "path": "a", "sha256": "zz"}}',
     b'{"__overnight__": {"type": "file.written", "path": "a", "bytes": -1}}',
     b'{"__overnight__": {"type": "file.written", "path": "a", "bytes": true}}',
     b'{"__overnight__": {"type": "log.updated", "path": "a", "kind": "other"}}',
     b'{"__overnight__": {"type": "usage.recorded"}}', b'{"__overnight__": {"type": "usage.recorded", "input": NaN}}',
     b'{"__overnight__": {"type": "usage.recorded", "input": 1e300}}',
     b'{"__overnight__": {"type": "tests.completed", "exit_code": "0"}}',
     b'{"__overnight__": {"type": "question.asked", "text": 1}}', b'{"__overnight__":{"type":"' + b"x" * 300 + b'"}}',
     b'{"__overnight__": {"type": "x", "y": "' + b"x" * 70_000 + b'"}}', b'{"__overnight__":' + b"[" * 30_000 + b"\n"],
)  # fmt: skip
def test_bad_ones_say_why(line: bytes) -> None:
    found = parse(line)
    assert isinstance(found, BadSentinel)
    assert found.reason


def test_the_head_of_a_longer_line_is_bad() -> None:
    assert isinstance(parse(_line({"type": "x"}), whole=False), BadSentinel)


def test_blanks_around_do_not_matter() -> None:
    assert isinstance(parse(b'  \t{"__overnight__": {"type": "x"}}  \r\n'), Draft)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.sampled_from(
    [
        "path",
        "bytes",
        "sha256",
        "kind",
        "text",
        "summary",
        "delta",
        "exit_code",
        "input",
        "output",
        "total",
        "cost_usd",
    ]
)
names = st.one_of(
    st.sampled_from([*TYPES, "file_written", "token_usage", "logUpdated"]), st.text(max_size=10)
)


@given(names, st.dictionaries(fields, json_values, max_size=5))
def test_whatever_is_claimed_only_harmless_types_come_out(type: str, body: dict[str, object]) -> None:
    found = parse(json.dumps({"__overnight__": {**body, "type": type}}).encode())
    allowed = {"file.written", "file.read", "file.deleted", "tests.started", "tests.completed", "log.updated",
               "question.asked", "agent.custom"}  # fmt: skip
    if isinstance(found, Draft):
        assert found.type in allowed
        encode(found, seq=1, run_id=None, session_id=None, at=0)


@given(st.binary(max_size=60))
def test_no_line_raises(noise: bytes) -> None:
    parse(noise)
    parse(b'{"__overnight__":' + noise)
