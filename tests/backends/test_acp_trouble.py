"""Agents of the protocol in trouble: cancelled, deaf, talking nonsense, failing, or left to another server."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest
from tests.backends.acp_stage import ALLOW, Inputs, Record, Stage, allow, drive, text
from tests.keeper.harness import lives

from overnight.domain.update import (
    Asked,
    Message,
    Output,
    Warned,
    Withdrawn,
)
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

CALL = {
    "toolCallId": "c1",
    "title": "rm -rf build",
    "kind": "execute",
    "rawInput": {"command": "rm -rf build"},
}


async def test_cancelling_answers_what_is_open_and_ends_terminals(stage: Stage) -> None:
    pid = stage.workspace / "pid"
    inputs, record = Inputs(), Record()
    line = f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 600"
    backend = stage.backend(
        ["ask_and_go_on", "terminal/create", {"command": line}], ["wait_for", str(pid)], ["permission", CALL]
    )
    turn = await backend.start(stage.begin(), inputs.store)
    reading = asyncio.ensure_future(drive(turn, record, lambda ask: None if ask.item_id else ALLOW))
    await eventually(lambda: any(ask.item_id for ask in record.of(Asked)))
    (asked,) = turn.open_asks()
    await turn.stop(reason="manual", interrupt=True)
    assert not await turn.answer(asked.key, ALLOW), "an agent that is being ended is told nothing more"
    await reading
    assert (turn.ended().cause, turn.ended().outcome.failure) == ("stopped", None)
    assert not lives(int(pid.read_text()))
    last = stage.received()[-2:]
    assert last[0]["method"] == "session/cancel", (
        "it shall stop before it hears that its question is given up"
    )
    assert last[1]["result"] == {"outcome": {"outcome": "cancelled"}}
    assert isinstance(record.updates[-1], Withdrawn | Message)
    await turn.release()


async def test_an_agent_that_is_deaf_is_killed(stage: Stage) -> None:
    start = stage.begin(limits=replace(stage.begin().limits, grace_s=0.3))
    record = Record()
    turn = await stage.backend(["ignore"], ["say", "deaf"], ["think", "."], ["hang"]).start(
        start, Inputs().store
    )
    reading = asyncio.ensure_future(drive(turn, record))
    await eventually(lambda: record.of(Message))
    await turn.stop(reason="cancel", interrupt=False)
    await reading
    stopped = turn.ended().stopped
    assert stopped is not None
    assert ("sigkill" in stopped.steps, stopped.survivors) == (True, 0)
    await turn.release()


async def test_an_agent_that_lingers_after_its_answer_is_dismissed(stage: Stage) -> None:
    record = Record()
    turn = await stage.backend(["say", "done"], lingers=True, patience_s=0.05).start(
        stage.begin(), Inputs().store
    )
    await drive(turn, record)
    ended = turn.ended()
    assert (ended.outcome.stop_reason, ended.cause, text(record)) == ("end_turn", "exit", "done")
    assert ended.stopped is not None
    assert "sigterm" in ended.stopped.steps
    await turn.release()


async def test_an_agent_that_never_answers_is_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.backends.process.minder.BEGIN_WITHIN_S", 0.1)
    _, ended = await stage.run(["say", "never"], mute=True)
    assert ended.outcome.failure is not None
    assert (ended.outcome.failure.code, ended.outcome.failure.retryable) == ("agent_silent", True)


ODD = [
    ("raw", "this is no JSON"),
    ("raw", "{not json either}"),
    ("raw", '["a","list"]'),
    ("raw", '{"jsonrpc":"2.0","id":[1],"method":"x"}'),
    ("raw", '{"jsonrpc":"2.0","id":41,"method":"fs/read_text_file","params":[1]}'),
    ("raw", '{"jsonrpc":"2.0","id":42}'),
    ("raw", '{"jsonrpc":"2.0","id":999,"result":{}}'),
    ("raw", '{"jsonrpc":"2.0","method":"session/update","params":{"update":7}}'),
    ("update", {"sessionUpdate": "tool_call"}),
    ("update", {"sessionUpdate": "a_thing_of_the_future", "x": 1}),
    ("update", {"sessionUpdate": "agent_message_chunk", "content": {"type": "image"}}),
    ("request", "no/such/method", {}),
    ("request", "fs/read_text_file", {"path": 7}),
    ("request", "fs/write_text_file", {"path": "a", "content": None}),
    ("request", "terminal/create", {"command": ["a"]}),
    ("request", "session/request_permission", {"toolCall": CALL, "options": []}),
    ("raw", '{"jsonrpc":"2.0","id":1,"method":"fs/read_text_file","params":{"path":"x"}}'),
]


async def test_whatever_an_agent_says_ends_in_no_exception_and_no_hang(stage: Stage) -> None:
    record, ended = await stage.run(*(list(move) for move in ODD), ["say", "still here"])
    assert text(record).endswith("still here")
    assert ended.outcome.stop_reason == "end_turn"
    assert [output.data for output in record.of(Output)][:3] == [
        b"this is no JSON\n", b"{not json either}\n", b'["a","list"]\n',
    ]  # fmt: skip
    codes = [answer.get("code") for answer in stage.answers()]
    assert codes.count(-32601) == 1
    assert codes.count(-32602) == 4
    assert codes.count(-32600) >= 3
    assert {warned.code for warned in record.of(Warned)} >= {
        "unfit_message",
        "unfit_request",
        "unasked_answer",
        "id_used_twice",
    }


async def test_a_message_that_is_too_long_is_refused_and_a_long_one_is_not(stage: Stage) -> None:
    big = "x" * (3 << 20)
    record, ended = await stage.run(
        ["request", "fs/write_text_file", {"path": str(stage.workspace / "big"), "content": big}],
        ["long", 17 << 20],
        ["say", "still here"],
    )
    assert (stage.workspace / "big").stat().st_size == len(big)
    assert text(record).endswith("still here")
    assert [answer.get("code") for answer in stage.answers()] == [None, -32600]
    assert any(output.total is not None for output in record.of(Output))
    assert ended.outcome.stop_reason == "end_turn"


@pytest.mark.parametrize(
    "moves, script, code",
    [
        ([["exit", 3]], {}, "agent_exit"),
        ([["refuse", -32603, "Internal error", {"message": "status 500: mock"}]], {}, "model_unavailable"),
        ([["refuse", 429, "slow down"]], {}, "rate_limited"),
        ([["refuse", -32000, "please log in"]], {}, "unauthorized"),
        ([], {"agent": {"protocolVersion": 2}}, "protocol_version"),
        ([], {"session": {"sessionId": None}}, "protocol_error"),
    ],
)
async def test_faults_have_names(stage: Stage, moves: list[Any], script: dict[str, Any], code: str) -> None:
    _, ended = await stage.run(*moves, **script)
    assert ended.outcome.failure is not None
    assert ended.outcome.failure.code == code, ended.outcome.failure


async def test_the_next_server_answers_what_the_last_one_left_open(stage: Stage) -> None:
    """Left in the middle of a question and of a command; each message reaches the agent once."""
    inputs, first = Inputs(), Record()
    go = stage.workspace / "go"
    backend = stage.backend(
        ["terminal", {"command": f"while ! test -e {go}; do sleep 0.02; done; echo went"}],
        ["permission", CALL],
        ["say", "!"],
    )
    start = stage.begin()
    turn = await backend.start(start, inputs.store)
    reading = asyncio.ensure_future(drive(turn, first))
    await eventually(
        lambda: any(message.get("result") == {"terminalId": "terminal-1"} for message in stage.received())
    )
    await turn.leave()
    await reading
    go.touch()
    second = Record(position=first.position)
    for token in (2, 3):
        again = replace(
            start,
            token=token,
            position=second.position,
            inputs=tuple(inputs.rows),
            inputs_sent=len(inputs.rows),
        )
        adopted = await backend.adopt(again, inputs.store)
        assert adopted is not None
        if token == 2:
            reading = asyncio.ensure_future(drive(adopted, second, lambda _: None))
            await eventually(lambda: second.of(Asked))
            await adopted.leave()
            await reading
        else:
            (asked,) = adopted.open_asks()
            assert asked == second.of(Asked)[0]
            assert await adopted.answer(asked.key, ALLOW)
            await drive(adopted, second, allow)
            assert adopted.ended().outcome.stop_reason == "end_turn"
            await adopted.release()
    assert "went" in text(second)
    assert text(second).endswith("[allow_once]!")
    stored = [json.loads(data) for _, data in inputs.rows]
    assert stage.received() == stored


async def test_terminals_of_a_turn_that_died_are_swept(stage: Stage) -> None:
    pid = stage.workspace / "pid"
    inputs, record = Inputs(), Record()
    backend = stage.backend(
        [
            "ask_and_go_on",
            "terminal/create",
            {"command": f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 600"},
        ],
        ["wait_for", str(pid)],
        ["hang"],
    )
    start = stage.begin()
    turn = await backend.start(start, inputs.store)
    reading = asyncio.ensure_future(drive(turn, record))
    await eventually(pid.exists)
    await turn.leave()
    await reading
    keeper = json.loads((start.folder / "keeper.json").read_text())
    os.kill(keeper["pid"], 9)
    again = replace(
        start, token=2, position=record.position, inputs=tuple(inputs.rows), inputs_sent=len(inputs.rows)
    )
    assert await backend.adopt(again, inputs.store) is None
    await eventually(lambda: not lives(int(pid.read_text())))
