"""Updates in, events out: exact shapes, bounded rates, nothing lost uncounted, no secret at any border."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain import update as u
from overnight.domain import values
from overnight.domain.event import TYPES, Draft
from overnight.domain.redaction import Redactor
from overnight.domain.values import Usage
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.interpreter import Interpreter, TurnSummary
from overnight.engine.telemetry.output import CHUNK, CHUNKS_A_SECOND

SECRET = "topsecretvalue"


def _interpreter(*, before: TurnSummary | None = None, watched: bool = False) -> Interpreter:
    return Interpreter(
        wall_ms=lambda: 5, redactor=Redactor([SECRET]), files=FileLedger("/w", watched=watched), before=before
    )


def _out(data: bytes, stream: Literal["stdout", "stderr"] = "stdout", total: int | None = None) -> u.Output:
    return u.Output(stream=stream, data=data, total=total)


def _sentinel(**body: object) -> u.Output:
    return _out(json.dumps({"__overnight__": body}).encode() + b"\n")


def _texts(drafts: Iterable[Draft]) -> str:
    return "".join(str(draft.data["text"]) for draft in drafts if draft.type == "output.recorded")


def _accounted(drafts: Iterable[Draft]) -> int:
    found = [draft.data for draft in drafts if draft.type == "output.recorded"]
    return sum(int(str(data["bytes"])) + int(str(data["truncated_bytes"])) for data in found)


def test_every_update_becomes_its_event_with_exact_fields() -> None:
    interpreter = _interpreter()
    cases: list[tuple[u.Update, str, dict[str, Any]]] = [
        (u.Message(item_id="m", text="hi\x1b[1m!"), "message.completed", {"item_id": "m", "text": "hi!"}),
        (u.Reasoning(item_id="r", text="hm"), "reasoning.completed", {"item_id": "r", "text": "hm"}),
        (u.ToolStarted(item_id="t", name="grep", arguments={"a": 1}), "tool.started",
         {"item_id": "t", "name": "grep", "arguments": {"a": 1}}),
        (u.ToolCompleted(item_id="t", name="grep", ok=True, output="o", duration_ms=3), "tool.completed",
         {"item_id": "t", "name": "grep", "ok": True, "output": "o", "truncated_bytes": 0, "duration_ms": 3}),
        (u.ToolStarted(item_id="c", name="shell", command="ls -l"), "command.started",
         {"item_id": "c", "command": "ls -l"}),
        (u.ToolCompleted(item_id="c", name="shell", ok=False, output="x", command="ls -l", exit_code=2, duration_ms=9),
         "command.completed", {"item_id": "c", "command": "ls -l", "exit_code": 2, "duration_ms": 9, "ok": False,
                               "output": "x", "truncated_bytes": 0}),
        (u.PlanReported(entries=({"text": "a", "status": "pending"},)), "plan.updated",
         {"entries": [{"text": "a", "status": "pending"}]}),
        (u.UsageReported(usage=Usage(input=5, cached=1, output=2, reasoning=1, cost_usd=0.5)), "usage.recorded",
         {"input": 5, "cached": 1, "output": 2, "reasoning": 1, "total": 7, "cost_usd": 0.5, "source": "backend"}),
        (u.LimitsReported(data={"left": 3}), "limits.reported", {"left": 3}),
        (u.Warned(code="retry", message="again"), "error.recorded",
         {"code": "retry", "message": "again", "retryable": True}),
        (u.Custom(name="x.y", data={"a": [1]}), "agent.custom", {"name": "x.y", "data": {"a": [1]}}),
        (u.FileTouched(path="/w/a/../b.py", kind="created"), "file.written",
         {"path": "b.py", "kind": "created", "bytes": None, "sha256": None, "added_lines": None,
          "removed_lines": None}),
        (u.FileTouched(path="b.py", kind="read"), "file.read", {"path": "b.py", "bytes": None}),
        (u.FileTouched(path="b.py", kind="deleted"), "file.deleted", {"path": "b.py"}),
        (u.FileTouched(path="/etc/passwd", kind="read"), "file.read",
         {"path": "/etc/passwd", "bytes": None, "outside": True}),
        (_out(b"line\n"), "output.recorded", {"stream": "stdout", "text": "line\n", "bytes": 5, "truncated_bytes": 0}),
    ]  # fmt: skip
    for second, (update, type, data) in enumerate(cases):
        assert interpreter.feed(update, float(second)) == [Draft(type=type, data=data)]
        assert type in TYPES
        assert interpreter.due() is None
    assert interpreter.feed(u.SessionKnown(state={}), 99.0) == []
    assert interpreter.feed(u.Delta(kind="message", item_id="m", offset=0, text="x"), 99.0) == []
    assert interpreter.finish(99.0) == []
    summary = interpreter.summary()
    assert (summary.message, summary.last_message, summary.usage) == ("hi!", "hi!", cases[7][0].usage)  # type: ignore[union-attr]


def test_the_live_line_follows_the_items() -> None:
    interpreter = _interpreter()
    interpreter.feed(u.ToolStarted(item_id="c", name="sh", command=f"\n echo {SECRET}\nmore"), 0.0)
    now = interpreter.now
    assert now == values.Now(item="command", text="echo [redacted]", since=5)
    assert interpreter.now is now
    interpreter.feed(u.ToolCompleted(item_id="c", name="sh", ok=True, command="x"), 0.1)
    assert _idle(interpreter)
    interpreter.feed(u.Message(item_id="m", text="done"), 0.2)
    assert not _idle(interpreter)
    interpreter.finish(1.0)
    assert _idle(interpreter)


def _idle(interpreter: Interpreter) -> bool:
    return interpreter.now is None


def test_lines_that_come_together_are_one_chunk_a_tenth_of_a_second_later() -> None:
    interpreter = _interpreter()
    assert _texts(interpreter.feed(_out(b"1\n"), 10.0)) == "1\n"
    assert interpreter.feed(_out(b"2\n"), 10.01) == []
    assert interpreter.feed(_out(b"3\n"), 10.02) == []
    assert interpreter.due() == pytest.approx(10.1)
    drafts = interpreter.flush(10.1)
    assert [(d.data["text"], d.data["bytes"]) for d in drafts] == [("2\n3\n", 4)]
    assert interpreter.due() is None


def test_streams_are_kept_apart() -> None:
    interpreter = _interpreter()
    drafts = interpreter.feed(_out(b"o\n"), 0.0) + interpreter.feed(_out(b"e\n", "stderr"), 0.0)
    assert [d.data["stream"] for d in drafts] == ["stdout", "stderr"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            st.one_of(
                st.binary(max_size=30), st.integers(0, 9000).map(lambda n: b"x" * n + b"\n"),
                st.integers(0, 3000).map(lambda n: "é".encode() * n + b"\n"),
                st.sampled_from([b"\x1b[31m\n", b"\xf0\x9f", b"\x98\x80\n",
                                 SECRET.encode()[:7], SECRET.encode()[7:] + b"\n"]),
            ),
            st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.2]),
            st.booleans(),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_every_byte_is_shown_or_counted_within_the_rate(
    lines: list[tuple[Literal["stdout", "stderr"], bytes, float, bool]],
) -> None:
    interpreter, now, drafts = _interpreter(), 100.0, []
    times: dict[str, list[float]] = {"stdout": [], "stderr": []}
    for stream, data, wait, flush in lines:
        now += wait
        found = interpreter.feed(_out(data, stream), now)
        due = interpreter.due()
        if flush and due is not None:
            now = max(now, due)
            found += interpreter.flush(now)
            assert interpreter.due() is None
        for draft in found:
            times[str(draft.data["stream"])].append(now)
        drafts += found
    drafts += interpreter.finish(now)
    assert _accounted(drafts) == sum(len(data) for _, data, _, _ in lines)
    assert all(len(str(draft.data["text"]).encode()) <= CHUNK for draft in drafts)
    for name, stamps in times.items():
        assert SECRET not in _texts([draft for draft in drafts if draft.data["stream"] == name])
        for stamp in stamps:
            assert sum(stamp - 1.0 < other <= stamp for other in stamps) <= CHUNKS_A_SECOND


def test_characters_are_whole_across_lines_and_chunks() -> None:
    interpreter = _interpreter()
    text = "日本語😀" * 300 + "\n"
    data = text.encode()
    drafts = (
        interpreter.feed(_out(data[:1001]), 0.0)
        + interpreter.feed(_out(data[1001:]), 5.0)
        + interpreter.finish(9.0)
    )
    assert _texts(drafts) == text
    assert "\ufffd" not in _texts(drafts)
    assert len(drafts) >= 2


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert _texts(_interpreter().feed(_out(b"a\xff\xfeb\n"), 0.0)) == "a\ufffd\ufffdb\n"


def test_a_flood_is_bounded_counted_and_cheap() -> None:
    interpreter, drafts = _interpreter(), []
    lines = [_out(b"line %d of a flood\n" % n) for n in range(100_000)]
    start = time.process_time()
    for number, line in enumerate(lines):
        drafts += interpreter.feed(line, number / 100_000)
    spent = time.process_time() - start
    drafts += interpreter.finish(1.0)
    assert _accounted(drafts) == sum(len(line.data) for line in lines)
    assert len(drafts) <= CHUNKS_A_SECOND + 2
    assert interpreter.summary().truncated_bytes > 1_000_000
    assert spent < 5


def test_a_fifty_megabyte_line_is_cut_and_counted() -> None:
    interpreter = _interpreter()
    drafts = interpreter.feed(_out(b"x" * 1_000_000, total=50_000_000), 0.0) + interpreter.feed(
        _out(b"next\n"), 5.0
    )
    drafts += interpreter.finish(9.0)
    assert _accounted(drafts) == 50_000_005
    assert _texts(drafts).endswith("next\n")
    assert len(_texts(drafts)) < 20_000


def test_a_secret_is_not_shown_by_halves_where_text_is_left_out() -> None:
    interpreter = _interpreter()
    line = b"x" * (2 * CHUNK - 3) + SECRET.encode() + b"\n"
    drafts = []
    for second in range(30):
        drafts += interpreter.feed(_out(line), second * 0.01)
    drafts += interpreter.feed(_out(b"a " + SECRET[:9].encode(), total=99_999), 5.0)
    drafts += interpreter.finish(9.0)
    assert SECRET[:5] not in _texts(drafts)
    output = u.ToolCompleted(item_id="c", name="s", ok=True, output="y" * 40 + (SECRET + "z" * 3) * 5000)
    shown = str(_interpreter().feed(output, 0.0)[0].data["output"])
    assert SECRET[4:] not in shown
    assert shown.endswith("zzz")
    message = u.Message(item_id="m", text=(SECRET + "é") * 30_000)
    data = _interpreter().feed(message, 0.0)[0].data
    assert SECRET[:5] not in str(data["text"])
    assert int(str(data["truncated_bytes"])) > 0


def test_sentinels_become_events_and_are_not_output() -> None:
    interpreter = _interpreter()
    drafts = interpreter.feed(_sentinel(type="file_written", path="/w/a.py", bytes=1), 0.0)
    drafts += interpreter.feed(_sentinel(type="tests.completed", passed=2, failed=1), 0.1)
    drafts += interpreter.feed(_sentinel(type="run.completed", by="me"), 0.2)
    assert [(d.type, d.data.get("path"), d.data.get("source")) for d in drafts] == [
        ("file.written", "a.py", "agent"), ("tests.completed", None, "agent"), ("agent.custom", None, None),
    ]  # fmt: skip
    assert interpreter.finish(1.0) == []
    assert interpreter.summary().tests == values.TestStats(passed=2, failed=1)
    assert interpreter.summary().counters["sentinels"] == 3


def test_bad_sentinels_and_those_on_stderr_are_shown_as_they_are() -> None:
    interpreter = _interpreter()
    bad = b'{"__overnight__": {"type": "file.written"}}\n'
    good = b'{"__overnight__": {"type": "x"}}\n'
    assert _texts(interpreter.feed(_out(bad), 0.0)) == bad.decode()
    assert _texts(interpreter.feed(_out(good, "stderr"), 0.0)) == good.decode()
    finish = interpreter.finish(1.0)
    assert [(d.type, d.data["code"]) for d in finish] == [("error.recorded", "sentinels_bad")]


def test_too_many_sentinels_stay_in_the_file_and_are_counted() -> None:
    interpreter, drafts = _interpreter(), []
    for number in range(3000):
        drafts += interpreter.feed(_sentinel(type="x", n=number), number / 100_000)
    assert len(drafts) == 1000
    assert len(interpreter.feed(_sentinel(type="x"), 2.0)) == 1
    assert len(interpreter.feed(_sentinel(type="x", text="y" * 60_000), 2.0)) == 1
    for _ in range(30):
        drafts = interpreter.feed(_sentinel(type="x", text="y" * 60_000), 2.0)
    assert drafts == []
    assert interpreter.summary().counters["sentinels_dropped"] > 2000
    assert [d.data["code"] for d in interpreter.finish(3.0)] == ["sentinels_dropped"]


def test_the_backends_usage_counts_before_the_agents_and_the_last_wins() -> None:
    interpreter = _interpreter()
    assert len(interpreter.feed(_sentinel(type="token_usage", inputTokens=9), 0.0)) == 1
    for amount in (1, 2):
        interpreter.feed(u.UsageReported(usage=Usage(input=amount)), 0.2 * amount)
    assert interpreter.feed(u.UsageReported(usage=Usage(input=2)), 0.8) == []
    assert interpreter.feed(_sentinel(type="token_usage", inputTokens=99), 1.0) == []
    assert interpreter.summary().usage == Usage(input=2)
    alone = _interpreter()
    alone.feed(_sentinel(type="token_usage", inputTokens=3), 0.0)
    alone.feed(_sentinel(type="token_usage", inputTokens=4), 0.1)
    alone.finish(1.0)
    assert alone.summary().usage == Usage(input=4)


def test_usage_in_a_flood_is_held_back_and_the_last_is_recorded() -> None:
    interpreter, drafts = _interpreter(), []
    for amount in range(1, 101):
        drafts += interpreter.feed(u.UsageReported(usage=Usage(input=amount)), 0.0)
    assert len(drafts) == 10
    due = interpreter.due()
    assert due == pytest.approx(1.0)
    drafts = interpreter.flush(1.0)
    assert [d.data["input"] for d in drafts] == [100]
    assert interpreter.due() is None


def test_test_results_from_commands_and_from_what_is_printed() -> None:
    interpreter = _interpreter()
    done = u.ToolCompleted(
        item_id="c",
        name="s",
        ok=False,
        command="pytest -q",
        exit_code=1,
        output="..F\n1 failed, 2 passed in 0.10s\n",
    )
    command, tests = interpreter.feed(done, 0.0)
    assert command.type == "command.completed"
    assert tests == Draft(
        type="tests.completed",
        data={"command": "pytest -q", "exit_code": 1, "duration_ms": 100, "passed": 2, "failed": 1, "skipped": 0,
              "runner": "pytest"},
    )  # fmt: skip
    drafts = interpreter.feed(_out(b"\x1b[32m===== 5 passed in 1.00s =====\x1b[0m\n"), 1.0)
    assert [d.type for d in drafts] == ["tests.completed", "output.recorded"]
    assert interpreter.summary().tests == values.TestStats(passed=5)


def test_a_closing_line_behind_a_flood_is_seen() -> None:
    interpreter = _interpreter()
    for number in range(5000):
        interpreter.feed(_out(b"noise %d\n" % number), 0.0)
    interpreter.feed(_out(b"7 passed in 0.01s\n"), 0.0)
    interpreter.feed(_out(b"bye\n"), 0.0)
    assert [d.type for d in interpreter.finish(0.1) if d.type != "output.recorded"] == ["tests.completed"]
    assert interpreter.summary().tests == values.TestStats(passed=7)


def test_too_much_of_anything_is_named_by_its_size() -> None:
    interpreter = _interpreter()
    big = {"a": "x" * 100_000}
    (tool,) = interpreter.feed(u.ToolStarted(item_id="t", name="n", arguments=big), 0.0)
    assert tool.data["arguments"] == {"truncated_bytes": 100_008}
    (custom,) = interpreter.feed(u.Custom(name="n", data=big), 0.0)
    assert custom.data["data"] == {"truncated_bytes": 100_008}
    dropped = sum(not interpreter.feed(u.Custom(name="n", data={}), 0.5) for _ in range(1500))
    assert dropped == 501
    assert [d.data["code"] for d in interpreter.finish(1.0)] == ["customs_dropped"]


def test_a_turn_taken_up_again_goes_on_from_what_is_known() -> None:
    before = TurnSummary(usage=Usage(input=5), tests=values.TestStats(passed=1), items=3, message="earlier")
    interpreter = _interpreter(before=before)
    assert interpreter.feed(u.UsageReported(usage=Usage(input=5)), 0.0) == []
    interpreter.finish(1.0)
    summary = interpreter.summary()
    assert (summary.usage, summary.tests, summary.items, summary.message) == (
        Usage(input=5), values.TestStats(passed=1), 3, "earlier",
    )  # fmt: skip


class TestLedger:
    def test_what_a_watcher_will_see_is_left_to_it(self) -> None:
        ledger = FileLedger("/w", watched=True)
        assert ledger.touched(u.FileTouched(path="a", kind="created")) == []
        (draft,) = ledger.written("a", "modified", 3, "f" * 64)
        assert (draft.data["kind"], draft.data["bytes"], draft.data["sha256"]) == ("created", 3, "f" * 64)
        assert ledger.written("a", "modified", 3, "f" * 64) == []
        assert len(ledger.written("a", "modified", 4, "e" * 64)) == 1
        assert len(ledger.deleted("a")) == 1
        assert ledger.deleted("a") == []

    def test_the_turns_end_tells_what_nobody_has_told(self) -> None:
        from overnight.ports.workspace import FileChange

        ledger = FileLedger("/w", watched=True)
        ledger.written("told", "created", 3, "a" * 64)
        ledger.deleted("gone")
        changes = [
            FileChange(path="told", kind="created", bytes=3, sha256="a" * 64, added_lines=1),
            FileChange(path="gone", kind="deleted", removed_lines=1),
            FileChange(path="new", kind="modified", bytes=4, sha256="b" * 64, added_lines=2, removed_lines=1),
            FileChange(path="huge", kind="created", bytes=10**9),
        ]
        drafts = ledger.settle(changes)
        assert [d.data["path"] for d in drafts] == ["new", "huge"]
        assert drafts[0].data == {"path": "new", "kind": "modified", "bytes": 4, "sha256": "b" * 64,
                                  "added_lines": 2, "removed_lines": 1}  # fmt: skip

    def test_a_thousand_and_the_rest_is_counted(self) -> None:
        ledger = FileLedger("/w")
        told = sum(bool(ledger.touched(u.FileTouched(path=f"f{n}", kind="read"))) for n in range(1500))
        assert (told, ledger.dropped) == (1000, 500)

    @pytest.mark.parametrize(
        "path, placed",
        [("a/b", ("a/b", False)), ("./a//b", ("a/b", False)), ("/w/a", ("a", False)), ("/w", (".", False)),
         ("/w/../x", ("/w/../x", True)), ("/wide/a", ("/wide/a", True)), ("../a", ("../a", True))],
    )  # fmt: skip
    def test_paths_are_relative_or_outside(self, path: str, placed: tuple[str, bool]) -> None:
        assert FileLedger("/w").place(path) == placed
