"""Questions that agents put as forms."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.backends.acp_stage import Inputs, Record, Stage, drive, text

from overnight.domain.update import Asked, Warned
from overnight.ports.backend import Verdict
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

COLOUR = {"type": "string", "oneOf": [{"const": "r", "title": "Red"}, {"const": "b", "title": "Blue"}]}
WORDS = {"type": "string", "title": "Other"}


def asking(properties: dict[str, Any], **more: Any) -> list[Any]:
    schema = {"type": "object", "properties": properties, **more.pop("schema", {})}
    return [
        "request",
        "elicitation/create",
        {"mode": "form", "message": "Which?", "requestedSchema": schema, **more},
    ]


def said(option: str | None, feedback: str = "") -> Verdict:
    return Verdict(allow=option is not None, option=option, feedback=feedback)


def accepted(**content: Any) -> dict[str, Any]:
    return {"action": "accept", "content": content}


@pytest.mark.parametrize(
    "properties, verdict, answers, result",
    [
        ({"c": COLOUR}, said("b"), ["r", "b"], accepted(c="b")),
        ({"c": COLOUR, "o": WORDS}, said("b", "dark"), ["r", "b"], accepted(c="b", o="dark")),
        ({"c": {"type": "string", "enum": ["x", "y"]}}, said("y"), ["x", "y"], accepted(c="y")),
        ({"c": {"type": "boolean"}}, said("no"), ["yes", "no"], accepted(c=False)),
        (
            {"c": {"type": "array", "items": {"anyOf": COLOUR["oneOf"]}}}, said("r"), ["r", "b"],
            accepted(c=["r"]),
        ),
        ({"o": WORDS}, said("in_words", "green"), ["in_words"], accepted(o="green")),
        ({"o": WORDS}, said("in_words"), ["in_words"], {"action": "decline"}),
        ({"c": COLOUR}, said(None), ["r", "b"], {"action": "decline"}),
    ],
)  # fmt: skip
async def test_a_form_with_one_question_is_put_to_people(
    stage: Stage, properties: dict[str, Any], verdict: Verdict, answers: list[str], result: dict[str, Any]
) -> None:
    record, ended = await stage.run(asking(properties, toolCallId="t1"), decide=lambda _: verdict)
    (asked,) = record.of(Asked)
    assert [answer.id for answer in asked.answers] == answers
    assert (asked.action.title, asked.item_id) == ("Which?", "t1")
    assert json.loads(text(record))["result"] == result
    assert ended.outcome.stop_reason == "end_turn"


@pytest.mark.parametrize(
    "move",
    [
        asking({"c": COLOUR, "d": COLOUR}),
        asking({"n": {"type": "integer"}}),
        asking({"o": WORDS, "p": WORDS}),
        asking({"c": COLOUR, "o": WORDS}, schema={"required": ["c", "o"]}),
        asking({}),
        asking({"c": COLOUR}, mode="url"),
        ["request", "elicitation/create", {"requestedSchema": 7}],
    ],
)
async def test_any_other_form_is_declined_and_told(stage: Stage, move: list[Any]) -> None:
    record, _ = await stage.run(move)
    assert record.of(Asked) == []
    assert [warned.code for warned in record.of(Warned)] == ["form_declined"]
    assert json.loads(text(record))["result"] == {"action": "decline"}


async def test_a_form_is_cancelled_with_its_turn(stage: Stage) -> None:
    record = Record()
    turn = await stage.backend(asking({"c": COLOUR})).start(stage.begin(), Inputs().store)
    reading = asyncio.ensure_future(drive(turn, record, lambda _: None))
    await eventually(lambda: record.of(Asked))
    await turn.stop(reason="manual", interrupt=True)
    await reading
    assert stage.answers()[-1] == {"action": "cancel"}
    await turn.release()
