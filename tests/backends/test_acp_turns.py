"""Turns of an agent that speaks the protocol, under a real keeper: what it says, asks, and has done."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.backends.acp_stage import ALLOW, REJECT, Inputs, Record, Stage, drive, text
from tests.keeper.harness import lives

from overnight.domain.update import (
    Asked,
    Delta,
    FileTouched,
    Message,
    PlanReported,
    Reasoning,
    SessionKnown,
    ToolCompleted,
    ToolStarted,
    UsageReported,
    Warned,
)
from overnight.domain.values import Usage
from overnight.ports.backend import Verdict
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

CALL = {
    "toolCallId": "c1",
    "title": "rm -rf build",
    "kind": "execute",
    "rawInput": {"command": "rm -rf build"},
}


async def test_a_turn_from_handshake_to_result(stage: Stage) -> None:
    tool = {
        "sessionUpdate": "tool_call",
        "toolCallId": "t",
        "title": "ls",
        "kind": "execute",
        "status": "in_progress",
    }
    done = {
        "sessionUpdate": "tool_call_update",
        "toolCallId": "t",
        "status": "completed",
        "rawInput": {"command": "ls"},
        "rawOutput": {"output": "a\n", "exit_code": 0},
    }
    usage = {"inputTokens": 10, "outputTokens": 5, "cachedReadTokens": 90, "totalTokens": 105}
    record, ended = await stage.run(
        ["think", "Hm"],
        ["think", "m."],
        ["say", "I heard "],
        ["say", "$PROMPT"],
        ["update", tool],
        ["update", done],
        [
            "update",
            {
                "sessionUpdate": "plan",
                "entries": [{"content": "one", "status": "completed", "priority": "low"}],
            },
        ],
        ["say", "Done."],
        ["result", {"stopReason": "end_turn", "usage": usage}],
        begin={"prompt": "ALPHA"},
    )
    assert (ended.outcome.stop_reason, ended.outcome.failure, ended.cause, ended.stopped) == (
        "end_turn",
        None,
        "exit",
        None,
    )
    assert [message.text for message in record.of(Message)] == ["I heard ALPHA", "Done."]
    assert [reasoning.text for reasoning in record.of(Reasoning)] == ["Hmm."]
    assert [(d.kind, d.offset, d.text) for d in record.of(Delta)][:4] == [
        ("reasoning", 0, "Hm"),
        ("reasoning", 2, "m."),
        ("message", 0, "I heard "),
        ("message", 8, "ALPHA"),
    ]
    assert [(t.command, t.name) for t in record.of(ToolStarted)] == [("ls", "execute")]
    assert [(t.ok, t.exit_code, t.output) for t in record.of(ToolCompleted)] == [(True, 0, "a\n")]
    assert record.of(PlanReported) == [PlanReported(entries=({"text": "one", "status": "completed"},))]
    assert [update.usage for update in record.of(UsageReported)] == [Usage(input=100, cached=90, output=5)]
    assert record.of(SessionKnown)[-1].state["cwd"] == str(stage.workspace)
    methods = [message.get("method") for message in stage.received()]
    assert methods == ["initialize", "session/new", "session/prompt"]


async def test_a_second_turn_goes_on_with_the_session_and_does_not_tell_its_history(stage: Stage) -> None:
    turns = [[["say", "first"]], [["say", "second in $SESSION"]]]
    first, _ = await stage.run(turns=turns)
    state = first.of(SessionKnown)[-1].state
    second, ended = await stage.run(turns=turns, begin={"resume": state, "turn": 2})
    assert (text(second), ended.outcome.stop_reason) == (f"second in {state['session_id']}", "end_turn")
    assert "session/load" in [message.get("method") for message in stage.received()]


async def test_a_session_that_is_gone_is_given_up_for_the_next_attempt(stage: Stage) -> None:
    gone = {"session_id": "gone", "cwd": str(stage.workspace)}
    record, ended = await stage.run(["say", "never"], begin={"resume": gone})
    assert ended.outcome.failure is not None
    assert (ended.outcome.failure.code, ended.outcome.failure.retryable) == ("session_lost", True)
    assert record.of(SessionKnown) == [SessionKnown(state={})]
    assert text(record) == ""


async def test_a_session_of_another_folder_is_not_taken_up(stage: Stage) -> None:
    record, ended = await stage.run(
        ["say", "new"], begin={"resume": {"session_id": "s", "cwd": "/elsewhere"}}
    )
    assert (text(record), ended.outcome.failure) == ("new", None)


@pytest.mark.parametrize(
    "verdict, kinds, chosen",
    [
        (ALLOW, ("allow_always", "allow_once", "reject_once"), "allow_once"),
        (ALLOW, ("allow_always", "reject_once"), "allow_always"),
        (REJECT, ("allow_once", "reject_always", "reject_once"), "reject_once"),
        (REJECT, ("allow_once", "reject_always"), "reject_always"),
        (REJECT, ("allow_once",), "cancelled"),
        (Verdict(allow=True, option="blue"), ("red", "blue"), "blue"),
        (Verdict(allow=False), ("red", "blue"), "cancelled"),
    ],
)
async def test_a_verdict_becomes_one_of_the_agents_options(
    stage: Stage, verdict: Verdict, kinds: tuple[str, ...], chosen: str
) -> None:
    record, ended = await stage.run(["permission", CALL, *kinds], decide=lambda _: verdict)
    assert (text(record), ended.outcome.stop_reason) == (f"[{chosen}]", "end_turn")
    (asked,) = record.of(Asked)
    assert (asked.action.kind, asked.action.command, asked.item_id) == ("execute", "rm -rf build", "c1")
    assert [answer.id for answer in asked.answers] == (list(kinds) if "blue" in kinds else [])


async def test_a_question_waits_is_answered_once_and_is_known_by_its_key(stage: Stage) -> None:
    inputs, record = Inputs(), Record()
    turn = await stage.backend(["permission", CALL]).start(stage.begin(), inputs.store)
    reading = asyncio.ensure_future(drive(turn, record, lambda _: None))
    await eventually(lambda: record.of(Asked))
    (asked,) = turn.open_asks()
    assert asked == record.of(Asked)[0]
    assert not await turn.answer("reply:12345", ALLOW)
    answered = await asyncio.gather(*(turn.answer(asked.key, ALLOW) for _ in range(3)))
    assert sorted(answered) == [False, False, True]
    assert turn.open_asks() == ()
    await reading
    assert len(stage.answers()) - stage.received().count({}) == 1
    await turn.release()


async def test_files_are_read_and_written_beneath_the_workspace_only(stage: Stage) -> None:
    outside = stage.place.data_dir / "secret"
    outside.write_text("secret")
    start = stage.begin()
    inside = stage.workspace / "lines"
    inside.write_text("one\ntwo\nthree\nfour\n")
    (stage.workspace / "link").symlink_to(outside)
    (stage.workspace / "out").symlink_to(stage.place.data_dir)
    os.link(outside, stage.workspace / "hard")
    (stage.workspace / "binary").write_bytes(b"\xff\xfe")
    (stage.workspace / ".git").mkdir()
    os.mkfifo(stage.workspace / "fifo")

    def read(path: str, **more: int) -> list[Any]:
        return ["request", "fs/read_text_file", {"path": path, **more}]

    def write(path: str) -> list[Any]:
        return ["request", "fs/write_text_file", {"path": path, "content": "new\n"}]

    there = str(stage.workspace)
    (stage.workspace / "long").write_text("x" * 99 + "\n" + "y" * (2 << 20))
    moves = [
        read(f"{there}/long"), read(f"{there}/long", limit=1),
        read(f"{there}/lines"), read(f"{there}/lines", line=2, limit=2), read(f"{there}/nothing"),
        read(f"{there}/link"), read(f"{there}/out/secret"), read(str(outside)), read(f"{there}/../secret"),
        read(f"{there}/binary"), read(f"{there}/fifo"), read(there),
        write(f"{there}/deep/er/new"), write(f"{there}/lines"), write(f"{there}/link"), write(f"{there}/out/new"),
        write(f"{there}/hard"), write(f"{there}/.git/config"), write(f"{there}/.claude/settings.json"),
        write(str(outside)),
    ]  # fmt: skip
    inputs = Inputs()
    turn = await stage.backend(*moves).start(start, inputs.store)
    record = await drive(turn, Record())
    await turn.release()
    too_long, its_head, *answers = stage.answers()
    assert ("ask for fewer lines" in too_long["message"], its_head) == (True, {"content": "x" * 99 + "\n"})
    assert answers[:2] == [{"content": "one\ntwo\nthree\nfour\n"}, {"content": "two\nthree\n"}]
    assert answers[2]["code"] == -32002
    assert "Resource not found" in answers[2]["message"]
    assert {answer["code"] for answer in answers[3:10]} == {-32000}
    assert answers[10:12] == [{}, {}]
    assert {answer["code"] for answer in answers[12:]} == {-32000}
    assert (stage.workspace / "deep" / "er" / "new").read_text() == "new\n"
    assert inside.read_text() == "new\n"
    assert outside.read_text() == "secret"
    assert not (stage.workspace / ".git" / "config").exists()
    asked: list[Asked] = record.of(Asked)
    assert [ask.action.kind for ask in asked] == ["read"] * 12 + ["edit"] * 8
    edit = next(
        ask for ask in asked if ask.action.kind == "edit" and ask.action.paths == (str(inside),)
    ).action.edits[0]
    assert (edit.before, edit.after) == ("one\ntwo\nthree\nfour\n", "new\n"), (
        "a person sees what is there now"
    )


async def test_what_is_not_allowed_is_not_done(stage: Stage) -> None:
    path = str(stage.workspace / "a")
    record, _ = await stage.run(
        ["request", "fs/write_text_file", {"path": path, "content": "x"}],
        ["terminal", {"command": f"touch {path}"}],
        decide=lambda _: Verdict(allow=False, feedback="use b instead"),
    )
    assert not Path(path).exists()
    assert "use b instead" in text(record)


async def test_a_run_that_may_only_read_writes_nothing_and_runs_nothing(stage: Stage) -> None:
    path = str(stage.workspace / "a")
    record, _ = await stage.run(
        ["request", "fs/write_text_file", {"path": path, "content": "x"}],
        ["terminal", {"command": f"touch {path}"}],
        begin={"sandbox": "read_only"},
    )
    assert not Path(path).exists()
    assert text(record).count("may only") == 2


async def test_leave_that_was_given_covers_exactly_what_was_shown(stage: Stage) -> None:
    path = str(stage.workspace / "a")
    diff = {"type": "diff", "path": path, "oldText": None, "newText": "shown"}
    edit = {
        "toolCallId": "e",
        "title": "Write a",
        "kind": "edit",
        "content": [diff],
        "locations": [{"path": path}],
    }
    run = {"toolCallId": "r", "title": "touch b", "kind": "execute", "rawInput": {"command": "touch b"}}
    record, _ = await stage.run(
        ["permission", edit],
        ["request", "fs/read_text_file", {"path": path}],
        ["request", "fs/write_text_file", {"path": path, "content": "shown"}],
        ["request", "fs/write_text_file", {"path": path, "content": "shown"}],
        ["permission", edit],
        ["request", "fs/write_text_file", {"path": path, "content": "other"}],
        ["permission", run],
        ["terminal", {"command": "touch", "args": ["b"]}],
        ["terminal", {"command": "touch b"}],
    )
    kinds = [(ask.action.tool, ask.action.kind) for ask in record.of(Asked)]
    assert kinds == [
        ("edit", "edit"),
        # The permission covered the read and the first write; a second one, and another text, are asked again.
        ("fs/write_text_file", "edit"),
        ("edit", "edit"),
        ("fs/write_text_file", "edit"),
        ("execute", "execute"),
        ("terminal/create", "execute"),
    ]
    assert Path(path).read_text() == "other"
    assert (stage.workspace / "b").exists()


async def test_a_second_question_about_a_call_shows_what_it_is_about(stage: Stage) -> None:
    def edit(text: str) -> dict[str, Any]:
        diff = {"type": "diff", "path": str(stage.workspace / "a"), "oldText": None, "newText": text}
        return {"toolCallId": "e", "kind": "edit", "title": "Write", "content": [diff], "rawInput": {text: 1}}

    nameless = {"kind": "execute", "title": "x", "rawInput": {"command": "x"}}
    record, _ = await stage.run(
        ["permission", edit("one")], ["permission", edit("two")], ["permission", {"toolCallId": "e", "title": "Write"}],
        ["permission", nameless], ["permission", {"kind": "other", "title": "nothing else"}],
    )  # fmt: skip
    asked: list[Asked] = record.of(Asked)
    assert [[edit.after for edit in ask.action.edits] for ask in asked] == [["one"], ["two"], ["two"], [], []]
    assert [ask.action.arguments for ask in asked[:2]] == [{"one": 1}, {"two": 1}]
    assert [ask.action.command for ask in asked[3:]] == ["x", None]


async def test_a_terminal_tells_its_output_and_how_it_ended(stage: Stage) -> None:
    record, ended = await stage.run(
        [
            "terminal",
            {
                "command": "echo out; echo err >&2; echo $WORD; exit 3",
                "env": [{"name": "WORD", "value": "w"}],
            },
        ],
        ["terminal", {"command": "printf", "args": ["%s", "ääää"], "outputByteLimit": 5}],
        ["terminal", {"command": "kill -9 $$"}],
        ["terminal", {"command": "pwd", "cwd": str(stage.workspace)}],
        ["terminal", {"command": "no-such-program-at-all"}],
        ["terminal", {"command": "true", "env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]}],
        ["request", "terminal/output", {"terminalId": "terminal-99"}],
        ["request", "terminal/kill", {"terminalId": "../../turn"}],
    )
    said = text(record)
    decoder, results = json.JSONDecoder(), []
    while said.startswith("["):
        if said.startswith("[terminal"):
            break
        value, end = decoder.raw_decode(said)
        results.append(value)
        said = said[end:]
    assert results == [
        ["out\nerr\nw\n", False, 3, None],
        ["ää", True, 0, None],
        ["", False, None, "SIGKILL"],
        [f"{stage.workspace}\n", False, 0, None],
        [results[4][0], False, 127, None],
    ]
    assert "LD_PRELOAD" in said
    assert said.count("there is no terminal") == 2
    assert ended.outcome.failure is None


async def test_what_a_terminal_prints_stands_with_its_tool_call(stage: Stage) -> None:
    shown = {
        "toolCallId": "t",
        "kind": "execute",
        "title": "make",
        "content": [{"type": "terminal", "terminalId": "terminal-1"}],
    }
    record, _ = await stage.run(
        ["terminal", {"command": "echo made; exit 2"}],
        ["update", {"sessionUpdate": "tool_call", "status": "in_progress", **shown}],
        ["update", {"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "completed"}],
    )
    assert [(t.output, t.exit_code, t.ok) for t in record.of(ToolCompleted)] == [("made\n", 2, False)]


async def test_nothing_of_a_terminal_outlives_the_turn(stage: Stage) -> None:
    pid = stage.workspace / "pid"
    line = f"trap '' TERM; (setsid sleep 600 & echo $! > {pid}.part; mv {pid}.part {pid}); sleep 600"
    record, ended = await stage.run(
        ["ask_and_go_on", "terminal/create", {"command": line}], ["wait_for", str(pid)], ["say", "done"],
        begin={"limits": replace(stage.begin().limits, grace_s=0.3)},
    )  # fmt: skip
    assert (text(record), ended.outcome.stop_reason) == ("done", "end_turn")
    assert not lives(int(pid.read_text()))


async def test_model_and_effort_are_set_where_they_are_offered_and_told_where_not(stage: Stage) -> None:
    model = {"models": {"availableModels": [{"modelId": "big", "name": "Big"}], "currentModelId": "small"}}
    option = {
        "id": "effort",
        "category": "thought_level",
        "type": "select",
        "options": [{"value": "low", "name": "l"}],
    }
    record, _ = await stage.run(
        ["say", "x"], session=model | {"configOptions": [option]}, begin={"model": "big", "effort": "high"}
    )
    sent = {message["method"]: message["params"] for message in stage.received() if "method" in message}
    assert sent["session/set_model"]["modelId"] == "big"
    assert [warned.code for warned in record.of(Warned)] == ["effort_not_set"]


async def test_reads_are_told_as_files(stage: Stage) -> None:
    call = {"sessionUpdate": "tool_call", "toolCallId": "r", "title": "Read", "kind": "read", "status": "completed",
            "locations": [{"path": "a.txt"}]}  # fmt: skip
    record, _ = await stage.run(["update", call])
    assert record.of(FileTouched) == [FileTouched(path=str(stage.workspace / "a.txt"), kind="read")]
