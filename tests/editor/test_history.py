"""The past of a session: what is replayed of it when it is long, trimmed, or goes on."""

from __future__ import annotations

from typing import Any, cast

import pytest

from overnight.client import Client
from overnight.client.editor import history
from overnight.client.editor.history import Replay
from overnight.errors import StreamTrimmed, Unreachable

pytestmark = pytest.mark.anyio


def run(number: int, state: str = "completed", turns: int = 1) -> dict[str, Any]:
    return {"id": f"run_{number}", "state": state, "last_seq": 3 * turns, "turn": turns}


class Past:
    """A server with such runs, newest first; each turn has three events."""

    def __init__(self, *runs: dict[str, Any]) -> None:
        self.runs = runs
        self.trimmed: set[str] = set()
        self.away = False
        self.asked = 0

    async def session_runs(self, session_id: str, *, limit: int) -> dict[str, Any]:
        return {"items": list(self.runs[:limit])}

    async def history(self, session_id: str, *, limit: int) -> dict[str, Any]:
        items = []
        for one in reversed(self.runs):
            for turn in range(1, one["turn"] + 1):
                for role, text in (("user", "asked"), ("assistant", "said")):
                    items.append(
                        {
                            "role": role,
                            "text": f"{text} {one['id']}.{turn}",
                            "run_id": one["id"],
                            "turn": turn,
                        }
                    )
        return {"items": items[-limit:]}

    async def events(self, run_id: str, *, before: int, order: str, types: str, limit: int) -> dict[str, Any]:
        self.asked += 1
        if self.away:
            raise Unreachable("away")
        if run_id in self.trimmed:
            raise StreamTrimmed("gone")
        found = []
        for seq in range(before - 1, max(0, before - 1 - limit), -1):
            turn, part = (seq - 1) // 3 + 1, (seq - 1) % 3
            data: dict[str, Any] = {"item_id": f"m{turn}", "text": f"said {run_id}.{turn}"}
            kind = ("turn.started", "message.completed", "file.written")[part]
            if part == 2:
                data = {"path": f"{turn}.txt", "kind": "created"}
            found.append({"seq": seq, "type": kind, "turn": turn, "attempt": 1, "data": data})
        return {"items": found}


async def told(past: Past) -> list[str]:
    replay = Replay(cast("Client", past), "ses_1", "/repo")
    _, runs = await replay.standing()
    updates, _ = await replay.updates(runs)
    texts = [
        getattr(getattr(one, "content", None), "text", None) or getattr(one, "title", "") for one in updates
    ]
    return [str(text) for text in texts]


async def test_everything_in_order() -> None:
    assert await told(Past(run(2), run(1, turns=2))) == [
        "asked run_1.1", "said run_1.1", "Create 1.txt", "asked run_1.2", "said run_1.2", "Create 2.txt",
        "asked run_2.1", "said run_2.1", "Create 1.txt",
    ]  # fmt: skip


async def test_of_what_is_too_long_or_trimmed_the_messages_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EVENTS", 5)
    past = Past(run(3, turns=3), run(2), run(1))
    found = await told(past)
    assert found == [
        "asked run_1.1", "said run_1.1", "asked run_2.1", "said run_2.1", "asked run_3.1", "said run_3.1",
        "asked run_3.2", "said run_3.2", "asked run_3.3", "said run_3.3", "Create 3.txt",
    ]  # fmt: skip
    trimmed = Past(run(2), run(1))
    trimmed.trimmed.add("run_1")
    assert (await told(trimmed))[:2] == ["asked run_1.1", "said run_1.1"]


async def test_a_server_that_goes_away_is_no_past() -> None:
    past = Past(run(1))
    past.away = True
    with pytest.raises(Unreachable):
        await told(past)


async def test_long_runs_are_read_page_by_page() -> None:
    past = Past(run(1, turns=500))
    assert len(await told(past)) == 1500
    assert past.asked == 2


async def test_runs_that_go_on_are_known() -> None:
    replay = Replay(cast("Client", Past(run(3, "queued"), run(2, "running"), run(1))), "ses_1", "/repo")
    standing, _ = await replay.standing()
    assert standing.newest_run == "run_3"
    assert [one["id"] for one in standing.live] == ["run_2", "run_3"]
