"""The official OpenAI clients, Python and JavaScript, read runs of a server as responses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import omit
from openai.types.responses import Response
from pydantic import TypeAdapter
from tests.responses.clients import claim, finish, node, python, record, show
from tests.responses.logs import draft, fragment
from tests.responses.reading import SCHEMA, Reader
from tests.server.stage import Stage, frames

from overnight.domain.run import Run
from overnight.domain.values import Failure
from overnight.testing.signals import eventually
from overnight.wire.responses import Position

pytestmark = pytest.mark.anyio
WHOLE: TypeAdapter[Response] = TypeAdapter(Response)
COMMAND: dict[str, Any] = {"item_id": "c", "command": "make test"}
REFUSED = Failure(code="rate_limited", message="try later", retryable=True)
Events = list[dict[str, Any]]


async def worked(stage: Stage, failure: Failure | None = None) -> Run:
    """A run that thought, said something, ran a command and a tool, said something else, and ended."""
    run = await stage.submitted("do it", labels={"team": "tools"})
    await claim(stage, run)
    await record(
        stage, run,
        draft("reasoning.completed", item_id="r", text="first look"),
        draft("message.completed", item_id="m", text="On it. "), draft("command.started", **COMMAND),
        draft("output.recorded", stream="stderr", text="noise\n", bytes=6, truncated_bytes=0),
        draft("command.completed", **COMMAND, ok=True, exit_code=0, output="3 passed\n", duration_ms=5),
        draft("tool.started", item_id="t", name="grep", arguments={"pattern": "é"}),
        draft("tool.completed", item_id="t", name="grep", ok=True, output="a.py", duration_ms=5),
        draft("message.completed", item_id="n", text="All green."), draft("turn.completed", stop_reason="end_turn"),
    )  # fmt: skip
    await finish(stage, run, failure)
    return run


async def python_events(stage: Stage, run: Run, after: int | None = None) -> Events:
    async with python(stage) as client:
        begun = omit if after is None else after
        stream = await client.responses.retrieve(run.id, stream=True, starting_after=begun)
        return [event.to_dict() for event in await _all(stream)]


async def _all(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_python_reads_a_run_whole_and_as_a_stream(stage: Stage) -> None:
    run = await worked(stage)
    events = await python_events(stage, run)
    for event in events:
        SCHEMA.validate_python(event)
    assert [event["type"] for event in events[:3]] == [
        "response.created", "response.queued", "response.in_progress",
    ]  # fmt: skip
    last = WHOLE.validate_python(events[-1]["response"])
    assert events[-1]["type"] == "response.completed"
    assert last.output_text == "On it. All green."
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.output_tokens, last.usage.total_tokens) == (100, 30, 130)
    assert (last.id, last.status, last.metadata) == (
        run.id, "completed", {"team": "tools", "overnight_state": "completed"},
    )  # fmt: skip
    assert [item.type for item in last.output] == [
        "reasoning", "message", "shell_call", "shell_call_output", "function_call", "function_call_output", "message",
    ]  # fmt: skip
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    async with python(stage) as client:
        whole = await client.responses.retrieve(run.id)
    assert whole.to_dict() == last.to_dict()
    assert [item["id"] for item in done] == [item.id for item in last.output]


async def test_the_helper_of_the_python_client_accumulates_it(stage: Stage) -> None:
    run = await worked(stage)
    async with python(stage) as client, client.responses.stream(response_id=run.id) as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots == ["On it. ", "All green."]
    assert final.output_text == "On it. All green."


async def test_python_resumes_behind_every_number(stage: Stage) -> None:
    run = await worked(stage)
    events = await python_events(stage, run)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    for at, number in enumerate(numbers, 1):
        assert await python_events(stage, run, number) == events[at:]


@pytest.mark.real_agents
async def test_javascript_reads_the_same(stage: Stage, javascript: Path) -> None:
    run = await worked(stage)
    events = await python_events(stage, run)
    middle = len(events) // 2
    async with (
        node(javascript, stage, run, "stream") as whole,
        node(javascript, stage, run, "stream", str(events[middle]["sequence_number"])) as rest,
        node(javascript, stage, run, "retrieve") as retrieved,
    ):
        await asyncio.gather(whole.all(), rest.all(), retrieved.all())
    assert whole.events == events
    assert rest.events == events[middle + 1 :]
    assert retrieved.lines[0]["value"]["output_text"] == "On it. All green."


@pytest.mark.real_agents
async def test_the_helper_of_the_javascript_client_accumulates_it(stage: Stage, javascript: Path) -> None:
    run = await worked(stage)
    async with node(javascript, stage, run, "helper") as helper:
        lines = await helper.all()
    assert lines[-1]["kind"] == "response", lines[-1]
    final = lines[-1]["value"]
    assert (final["output_text"], final["status"]) == ("On it. All green.", "completed")
    assert [item["type"] for item in final["output"]][2:4] == ["shell_call", "shell_call_output"]


@pytest.mark.parametrize("how", ["stream", "helper"])
@pytest.mark.real_agents
async def test_text_arrives_at_both_clients_while_it_is_written(
    stage: Stage, javascript: Path, how: str
) -> None:
    run = await stage.submitted()
    await claim(stage, run)
    read: Events = []

    async def follow() -> None:
        async with python(stage) as client:
            if how == "helper":
                async with client.responses.stream(response_id=run.id) as helper:
                    await _until(helper, read, "never")
            else:
                await _until(await client.responses.retrieve(run.id, stream=True), read, "never")

    async with node(javascript, stage, run, how) as js:
        task = asyncio.create_task(follow())
        await eventually(lambda: js.has("response.in_progress"), within=120, what="begun")
        await eventually(lambda: "response.in_progress" in [event["type"] for event in read], what="begun")
        text = "one two three"
        shown = {"msg_1_1_m": "one two "}
        pieces = fragment("m", 0, "one "), fragment("m", 4, "two ")
        await show(
            stage,
            run,
            lambda: all(Reader().read(seen).deltas == shown for seen in (js.events, read)),
            *pieces,
        )
        assert len(await stage.log(run)) == 3, "nothing of it is in the log"
        await record(stage, run, draft("message.completed", item_id="m", text=text), draft("turn.completed"))
        await finish(stage, run)
        await asyncio.gather(js.all(), task)
    for events in (js.events, read):
        found = Reader().read(events)
        assert found.deltas == found.whole == {"msg_1_1_m": text}
        assert events[-1]["type"] == "response.completed"


async def test_a_reader_that_was_cut_off_in_a_word_goes_on_in_it(stage: Stage) -> None:
    run = await stage.submitted()
    await claim(stage, run)
    first: Events = []
    async with python(stage) as client:
        stream = await client.responses.retrieve(run.id, stream=True)
        task = asyncio.create_task(_until(stream, first, "response.output_text.delta"))
        await eventually(lambda: len(first) >= 3, what="the beginning")
        await show(stage, run, task.done, fragment("m", 0, "incompre"))
        await task
    number = first[-1]["sequence_number"]
    assert Position.of(number) == Position(3, 15, "message", 8)
    later: Events = []
    async with python(stage) as client:
        stream = await client.responses.retrieve(run.id, stream=True, starting_after=number)
        task = asyncio.create_task(_until(stream, later, "response.completed"))
        await show(stage, run, lambda: later, fragment("m", 8, "hens"))
        await record(stage, run, draft("message.completed", item_id="m", text="incomprehensible"))
        await finish(stage, run)
        await task
    found = Reader().read(first).read(later)
    assert found.deltas == found.whole == {"msg_1_1_m": "incomprehensible"}
    assert found.began == found.ended == ["msg_1_1_m"]
    assert found.numbers == sorted(set(found.numbers))


async def _until(stream: Any, found: Events, type: str) -> None:
    async for event in stream:
        found.append(event.to_dict(warnings=False))
        if event.type == type:
            return


@pytest.mark.real_agents
async def test_a_run_that_failed_ends_as_a_failed_response(stage: Stage, javascript: Path) -> None:
    run = await worked(stage, REFUSED)
    events = await python_events(stage, run)
    last = events[-1]
    SCHEMA.validate_python(last)
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {
        "code": "rate_limit_exceeded",
        "message": "rate_limited: try later",
    }
    assert last["response"]["metadata"]["overnight_error"] == "rate_limited"
    async with node(javascript, stage, run, "helper") as helper:
        lines = await helper.all()
    assert (lines[-1]["kind"], lines[-1]["value"]["status"]) == ("response", "failed")


@pytest.mark.real_agents
async def test_a_run_that_was_cancelled_ends_as_a_response_of_that_status(
    stage: Stage, javascript: Path
) -> None:
    run = await stage.submitted()
    async with stage.client() as http:
        answer = await http.post(f"/api/v1/runs/{run.id}/control", json={"action": "cancel"})
    assert answer.json()["state"] == "cancelled"
    last = (await python_events(stage, run))[-1]
    SCHEMA.validate_python(last)
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    async with node(javascript, stage, run, "helper") as helper:
        lines = await helper.all()
    assert (lines[-1]["kind"], lines[-1]["value"]["status"]) == ("response", "cancelled")


async def test_a_response_says_where_the_run_stands(stage: Stage) -> None:
    run = await stage.submitted()
    async with python(stage) as client:
        assert (await client.responses.retrieve(run.id)).status == "queued"
        await claim(stage, run)
        await record(stage, run, draft("message.completed", item_id="m", text="so far"))
        now = await client.responses.retrieve(run.id)
    assert (now.status, now.output_text, now.usage) == ("in_progress", "so far", None)
    assert now.model == "echo"


@pytest.mark.real_agents
async def test_refusals_reach_the_clients_as_their_own_errors(stage: Stage, javascript: Path) -> None:
    run = await worked(stage)
    unknown = "run_00000000000000000000000000"
    async with python(stage, "ovn_" + "x" * 43) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.responses.retrieve(run.id)
    async with python(stage) as client:
        for streamed in (False, True):
            with pytest.raises(openai.NotFoundError) as missing:
                await client.responses.retrieve(unknown, stream=streamed)
            assert missing.value.code == "not_found"
        for number in (1, (1 << 53) - 1):
            with pytest.raises(openai.UnprocessableEntityError) as refused:
                await client.responses.retrieve(run.id, stream=True, starting_after=number)
            assert refused.value.code == "invalid_cursor"
    async with node(javascript, stage, run, "retrieve", secret="ovn_" + "y" * 43) as js:
        (line,) = await js.all()
    assert (line["kind"], line["value"]["status"]) == ("error", 401)


@pytest.mark.real_agents
async def test_both_clients_stop_when_there_is_nothing_left(stage: Stage, javascript: Path) -> None:
    run = await worked(stage)
    last = (await python_events(stage, run))[-1]["sequence_number"]
    assert await python_events(stage, run, last) == []
    async with node(javascript, stage, run, "stream", str(last)) as js:
        assert await js.all() == []


async def test_what_is_trimmed_is_refused_before_the_first_byte(stage: Stage) -> None:
    run = await worked(stage)
    await stage.store.write(lambda tx: tx.events.trim(run.pk, 3, 10))
    async with stage.client() as http:
        for path in (
            f"openai/responses/{run.id}?stream=true",
            f"runs/{run.id}/stream?shape=responses&after=5",
        ):
            answer = await http.get(f"/api/v1/{path}")
            assert (answer.status_code, answer.json()["code"]) == (410, "stream_trimmed")
        assert (await http.get(f"/api/v1/openai/responses/{run.id}")).json()["status"] == "completed"


async def test_the_runs_own_stream_has_the_shape_too_with_our_cursor(stage: Stage) -> None:
    run = await worked(stage)
    log, path = await stage.log(run), f"/api/v1/runs/{run.id}/stream?shape=responses"
    async with stage.client() as http:
        whole = frames((await http.get(path)).content)
        assert (whole[-1].event, whole[-1].data, whole[-1].id) == ("end", ["[DONE]"], str(log[-1].seq))
        assert [frame.event for frame in whole[:2]] == ["message", "message"]
        kinds = [frame.data[0].partition('"type":"')[2].partition('"')[0] for frame in whole[:-1]]
        assert {"overnight.event", "response.output_text.delta", "response.completed"} <= set(kinds)
        ids = [int(frame.id or 0) for frame in whole]
        assert ids == sorted(ids)
        assert set(ids) == {0, *(event.seq for event in log)}, "every event of the log is there in some form"
        for after in range(1, len(log)):
            rest = frames((await http.get(path, headers={"Last-Event-ID": str(after)})).content)
            behind = next(at for at, frame in enumerate(whole) if int(frame.id or 0) == after) + 1
            assert rest == whole[behind:]
        assert (await http.get(f"{path}&after={len(log)}")).status_code == 204
        named = frames((await http.get(f"{path}&named=1")).content)
        assert named[0].event == "response.created"
        refused = await http.get(f"{path}&on_gap=event")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_live_text_on_the_runs_own_stream_is_for_those_who_ask(stage: Stage) -> None:
    run = await stage.submitted()
    await claim(stage, run)
    path = f"/api/v1/runs/{run.id}/stream?shape=responses"
    bodies = {"": b"", "&deltas=1": b""}

    async def follow(query: str) -> None:
        async with stage.client() as http, http.stream("GET", path + query) as answer:
            async for piece in answer.aiter_raw():
                bodies[query] += piece

    tasks = [asyncio.create_task(follow(query)) for query in bodies]
    await eventually(lambda: all(b"turn.started" in body for body in bodies.values()), what="both are there")
    await show(stage, run, lambda: b"output_text.delta" in bodies["&deltas=1"], fragment("m", 0, "live"))
    assert frames(bodies["&deltas=1"])[-1].id == "3", "what is shown live moves no cursor"
    await record(stage, run, draft("message.completed", item_id="m", text="live and well"))
    await finish(stage, run)
    await asyncio.gather(*tasks)
    assert [body.count(b"output_text.delta") for body in bodies.values()] == [1, 2]


async def test_somebody_with_whom_the_session_is_shared_may_read_it(stage: Stage) -> None:
    run = await worked(stage)
    other = await stage.token(owner="usr_other", name="other")
    async with python(stage, other) as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(run.id)
        async with stage.client() as http:
            answer = await http.post(
                f"/api/v1/sessions/{run.session_id}/share", json={"user": "usr_other", "role": "viewer"}
            )
            assert answer.status_code < 300, answer.text
        assert (await client.responses.retrieve(run.id)).output_text == "On it. All green."
