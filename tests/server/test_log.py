"""The log, turns, prompts and raw output over HTTP."""

import os
from dataclasses import replace
from typing import Any

import pytest
from tests.server.stage import OPERATORS_SECRET, Stage

from overnight.domain.event import Draft
from overnight.domain.run import Run, Turn
from overnight.domain.states import TurnState
from overnight.domain.values import Usage
from overnight.server.files import PIECE

pytestmark = pytest.mark.anyio


async def opened(stage: Stage, run: Run, number: int, attempt: int = 1) -> Turn:
    """A turn with its folder."""
    folder = f"runs/{run.id}/turns/{number}-{attempt}"
    (stage.data_dir / folder).mkdir(parents=True)
    turn = Turn(
        run_pk=run.pk, number=number, attempt=attempt, state=TurnState.STARTED, backend="echo", token=1,
        folder=folder, started_at=stage.clock.wall_ms(), first_seq=2,
    )  # fmt: skip
    await stage.store.write(lambda tx: tx.turns.open(turn))
    return turn


async def test_events_can_be_read_from_both_ends_and_filtered(stage: Stage) -> None:
    run = await stage.submitted()
    drafts = [
        Draft(type="message.completed" if n % 2 else "file.written", data={"n": n}, turn=1 + n // 5)
        for n in range(10)
    ]
    await stage.store.write(lambda tx: tx.events.append(run.pk, drafts, stage.clock.wall_ms()))
    log = await stage.log(run)

    async def seqs(query: str) -> tuple[list[int], Any]:
        async with stage.client() as http:
            page = (await http.get(f"/api/v1/runs/{run.id}/events{query}")).json()
        return [event["seq"] for event in page["items"]], page["next_cursor"]

    assert await seqs("") == (list(range(1, 12)), None)
    assert await seqs("?limit=4") == ([1, 2, 3, 4], "4")
    assert await seqs("?limit=4&after=4") == ([5, 6, 7, 8], "8")
    assert await seqs("?order=desc&limit=3") == ([11, 10, 9], "9")
    assert await seqs("?order=desc&limit=3&before=9") == ([8, 7, 6], "6")
    assert await seqs("?types=message.completed&turn=2") == ([7, 9, 11], None)
    assert (await seqs("?types=run.queued,file.written"))[0] == [1, 2, 4, 6, 8, 10]
    assert (await seqs("?types=run.queued&types=file.written&turn=2"))[0] == [8, 10]
    async with stage.client() as http:
        answer = await http.get(f"/api/v1/runs/{run.id}/events")
        assert (
            answer.content
            == b'{"items":[' + b",".join(event.body for event in log) + b'],"next_cursor":null}'
        )
        for query in ("?limit=1001", "?order=up", "?after=-1", "?turn=0", "?before=x", "?what=1"):
            assert (await http.get(f"/api/v1/runs/{run.id}/events{query}")).status_code == 422


async def test_turns_with_every_attempt(stage: Stage) -> None:
    run = await stage.submitted()
    first = await opened(stage, run, 1)
    done = replace(
        first, state=TurnState.COMPLETED, ended_at=first.started_at + 1500, last_seq=9, stop_reason="end_turn", items=3,
        usage=Usage(input=10, output=2), last_message="Done.",
    )  # fmt: skip
    await stage.store.write(lambda tx: tx.turns.save(done))
    await opened(stage, run, 2)
    await opened(stage, run, 2, attempt=2)
    async with stage.client() as http:
        turns = (await http.get(f"/api/v1/runs/{run.id}/turns")).json()["items"]
    assert [(turn["turn"], turn["attempt"], turn["state"]) for turn in turns] == [
        (1, 1, "completed"), (2, 1, "started"), (2, 2, "started"),
    ]  # fmt: skip
    assert (turns[0]["duration_ms"], turns[0]["last_message"], turns[0]["items"]) == (1500, "Done.", 3)
    assert turns[0]["usage"] == {
        "input": 10, "cached": 0, "output": 2, "reasoning": 0, "total": 12, "cost_usd": None,
    }  # fmt: skip


async def test_output_is_a_raw_download_and_the_prompt_is_text(stage: Stage) -> None:
    run = await stage.submitted()
    turn = await opened(stage, run, 1)
    await opened(stage, run, 1, attempt=2)
    folder = stage.data_dir / turn.folder
    raw = b"\x1b[31m<script>alert(1)</script>\xff\x00" + b"x" * 1_000_000
    (folder / "stdout").write_bytes(raw)
    (folder / "prompt.md").write_text("Do it.", encoding="utf-8")
    async with stage.client() as http:
        base = f"/api/v1/runs/{run.id}/turns/1"
        answer = await http.get(f"{base}/output?attempt=1")
        assert answer.content == raw
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment;")
        head = await http.head(f"{base}/output?attempt=1")
        assert (head.status_code, head.content) == (200, b"")
        assert (await http.get(f"{base}/output?attempt=1&stream=stderr")).status_code == 404
        assert (await http.get(f"{base}/output")).status_code == 404, "the last attempt has printed nothing"
        assert (await http.get(f"{base}/prompt")).status_code == 404
        (stage.data_dir / f"runs/{run.id}/turns/1-2/prompt.md").write_text("Again.", encoding="utf-8")
        assert (await http.get(f"{base}/prompt")).text == "Again."
        for bad in (
            "2/output",
            "0/output",
            "x/output",
            "1/output?stream=prompt.md",
            "1/output?stream=../stdout",
        ):
            assert (await http.get(f"/api/v1/runs/{run.id}/turns/{bad}")).status_code in (404, 422)


@pytest.mark.parametrize("lead", [0, PIECE - 10, PIECE - len(OPERATORS_SECRET) + 1, PIECE - 1])
async def test_a_download_shows_no_secret_and_keeps_every_other_byte(stage: Stage, lead: int) -> None:
    run = await stage.submitted()
    turn = await opened(stage, run, 1)
    before, after = b"\xfe" * lead + b"\xc3", b"\xa9\x00 sk-not, \xe2\x82 end"
    (stage.data_dir / turn.folder / "stdout").write_bytes(before + OPERATORS_SECRET.encode() + after)
    async with stage.client() as http:
        answer = await http.get(f"/api/v1/runs/{run.id}/turns/1/output")
    assert answer.content == before + b"[redacted]" + after


async def test_links_and_pipes_in_the_folder_are_never_followed(stage: Stage) -> None:
    run = await stage.submitted()
    turn = await opened(stage, run, 1)
    folder = stage.data_dir / turn.folder
    (folder / "stdout").symlink_to("/etc/passwd")
    os.mkfifo(folder / "stderr")
    async with stage.client() as http:
        for stream in ("stdout", "stderr"):
            answer = await http.get(f"/api/v1/runs/{run.id}/turns/1/output?stream={stream}")
            assert answer.status_code == 404


async def test_diff_of_a_run_without_snapshots_is_empty_and_has_an_etag(stage: Stage) -> None:
    run = await stage.submitted(workspace=str(stage.work))
    async with stage.client() as http:
        answer = await http.get(f"/api/v1/runs/{run.id}/diff")
        assert (answer.status_code, answer.json()["files"]) == (200, [])
        etag = answer.headers["etag"]
        same = await http.get(f"/api/v1/runs/{run.id}/diff", headers={"If-None-Match": f'"other", {etag}'})
        assert (same.status_code, same.content) == (304, b"")
        for query in ("?scope=turn", "?turn=1", "?scope=all", "?path="):
            assert (await http.get(f"/api/v1/runs/{run.id}/diff{query}")).status_code == 422
