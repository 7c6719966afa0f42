"""Functions as tools: their schemas, their arguments, their threads, and what becomes of them when cancelled."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from tests.tools.stage import Hub, caller, host, hub

from overnight.client.socket.tools import Answer, Progress, ToolCancelled
from overnight.client.tools import Abandoned, FunctionTool, Say, collect, tool
from overnight.errors import ArgumentsRefused, InvalidInput, ToolFailure

pytestmark = pytest.mark.anyio


class Where(BaseModel):
    city: str
    floor: int = 0


@dataclasses.dataclass
class Colour:
    name: str = "red"


def made(function: Any) -> FunctionTool:
    (found,) = collect({"x": tool(function)}).values()
    return found


async def unheard(_: Progress) -> None:
    """Nobody listens."""


@pytest.fixture
async def there() -> AsyncIterator[Hub]:
    async with hub() as found:
        yield found


def test_the_schema_comes_from_the_annotations() -> None:
    def paint(
        what: str, where: Where, how: Literal["thin", "thick"] = "thin", colour: Colour | None = None,
        layers: Annotated[int, Field(ge=1, le=9)] = 2, note: str | None = None, say: Say | None = None,
    ) -> None:  # fmt: skip
        """Paint something."""

    meta = made(paint).meta
    schema = meta["parameters"]
    assert (meta["name"], meta["description"], meta["streaming"]) == ("paint", "Paint something.", True)
    assert schema["required"] == ["what", "where"]
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == ["what", "where", "how", "colour", "layers", "note"]
    assert schema["properties"]["what"] == {"type": "string"}
    assert schema["properties"]["how"] == {"default": "thin", "enum": ["thin", "thick"], "type": "string"}
    assert schema["properties"]["layers"] == {"default": 2, "maximum": 9, "minimum": 1, "type": "integer"}
    assert schema["$defs"]["Where"]["required"] == ["city"]
    assert schema["$defs"]["Colour"]["properties"]["name"]["default"] == "red"


async def test_arguments_arrive_as_what_they_are_annotated() -> None:
    def paint(where: Where, colour: Colour, model_config: int, _hidden: str = "h", copy: int = 1) -> Any:
        return [type(where).__name__, type(colour).__name__, model_config, _hidden, copy]

    answer = await made(paint).run({"where": {"city": "Rome"}, "colour": {}, "model_config": 4}, unheard)
    assert answer.details == ["Where", "Colour", 4, "h", 1]
    for bad in ({}, {"where": {"city": "Rome"}, "colour": {}, "model_config": 4, "more": 1}):
        with pytest.raises(ArgumentsRefused):
            await made(paint).run(bad, unheard)


async def test_whatever_is_returned_is_an_answer() -> None:
    for value, text, details in (
        ("words", "words", None),
        (None, "done", None),
        ({"a": 1}, '{"a": 1}', {"a": 1}),
        (Where(city="Köln"), '{"city": "Köln", "floor": 0}', {"city": "Köln", "floor": 0}),
        (Colour(), '{"name": "red"}', {"name": "red"}),
        (Answer(content=[{"type": "text", "text": "own"}], is_error=True), "own", None),
    ):

        def give(value: Any = value) -> Any:
            return value

        give.__annotations__ = {"value": object | None}
        found = await made(lambda: None).run({}, unheard) if value is None else await _given(value)
        assert (found.text, found.details) == (text, details)


async def _given(value: Any) -> Answer:
    def give() -> Any:
        return value

    return await made(give).run({}, unheard)


def test_what_makes_no_schema_is_refused() -> None:
    def no_annotation(a): ...  # type: ignore[no-untyped-def]
    def many(*a: int) -> None: ...
    def strange(a: threading.Lock) -> None: ...
    def unknown(a: Nothing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    async def generator() -> AsyncIterator[int]:
        yield 1

    for function in (no_annotation, many, strange, unknown, generator):
        with pytest.raises(InvalidInput) as refused:
            tool(function)
        assert function.__name__ in refused.value.detail


def test_two_of_one_name_are_refused_and_an_alias_is_none() -> None:
    one, two = tool(lambda: 1, name="x"), tool(lambda: 2, name="x")
    assert list(collect({"a": one, "b": one, "c": 3})) == ["x"]
    with pytest.raises(InvalidInput):
        collect({"a": one, "b": two})


async def test_plain_functions_run_beside_the_loop_and_say_how_far_they_are(there: Hub) -> None:
    def count(to: int, say: Say) -> str:
        assert threading.current_thread() is not threading.main_thread()
        for n in range(to):
            say(str(n), percent=100 * n / to)
        return "done"

    await there.join(caller(), host(made(count)))
    mine = await there.join(caller())
    heard: list[str | None] = []

    async def hear(progress: Progress) -> None:
        heard.append(progress.partial)

    assert (await mine.calls.execute("count", {"to": 300}, hear=hear)).text == "done"
    assert heard == [str(n) for n in range(300)]


@pytest.mark.parametrize("error", [ValueError("no luck"), SystemExit("no luck"), StopIteration("no luck")])
async def test_what_a_function_raises_is_told(there: Hub, error: BaseException) -> None:
    def fail() -> None:
        raise error

    await there.join(caller(), host(made(fail)))
    mine = await there.join(caller())
    with pytest.raises(ToolFailure, match="no luck") as found:
        await mine.calls.execute("fail", {})
    assert found.value.code == "tool_execution_error"


async def test_a_plain_function_that_is_cancelled_is_over_for_its_caller_and_stops_at_its_next_word(
    there: Hub,
) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[type[BaseException]] = []

    def work(say: Say) -> None:
        begun.set()
        go.wait(60)
        try:
            say("still here")
        except Abandoned as error:
            raised.append(type(error))
        ended.set()

    await there.join(caller(), host(made(work)))
    mine = await there.join(caller())
    call = asyncio.create_task(mine.calls.execute("work", {}, execution="x1"))
    await asyncio.to_thread(begun.wait, 60)
    await mine.calls.cancel("x1", "enough")
    with pytest.raises(ToolCancelled, match="enough"):
        await call
    assert not ended.is_set(), "no thread can be ended from outside"
    go.set()
    await asyncio.to_thread(ended.wait, 60)
    assert raised == [Abandoned]
