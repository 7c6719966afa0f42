"""Each thing is shown once, and nothing is left out that was not shown."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from overnight.cli.telling import KEPT, Telling
from overnight.cli.views import JsonView, LiveView, PlainView

ANSWER = "I read the goal.\nIt fails, as it should."


def event(type: str, *, turn: int | None = 1, attempt: int | None = 1, **data: Any) -> dict[str, Any]:
    at = "2026-01-31T12:00:00.000Z"
    return {"seq": 1, "type": type, "at": at, "turn": turn, "attempt": attempt, "data": data}


def out(text: str, *, stream: str = "stdout", truncated: int = 0, **place: Any) -> dict[str, Any]:
    return event("output.recorded", text=text, stream=stream, truncated_bytes=truncated, **place)


def said(text: str, **place: Any) -> dict[str, Any]:
    return event("message.completed", item_id="answer", text=text, **place)


def told(*events: dict[str, Any]) -> list[str]:
    telling = Telling()
    return [line.text for one in events for line in telling.lines(one)]


def test_an_answer_that_was_printed_is_not_told_again() -> None:
    first, second = ANSWER.split("\n")
    printed = [f"   │ {first}", f"   │ {second}"]
    assert told(out(ANSWER + "\n"), said(ANSWER)) == printed
    spaced = [f"   │ {first}", "   │ ", f"   │ {second}"]
    assert told(out(first + "\n"), out("\n"), out(second + "\n"), said(f"{first}\n\n{second}")) == spaced
    in_two = (
        out(first + "\n"),
        out("to the side\n", stream="stderr"),
        event("run.steered", turn=None),
        out(second),
    )
    assert told(*in_two, said(ANSWER))[-1] == f"   │ {second}"


def test_the_same_words_are_told_when_they_are_other_words() -> None:
    assert told(out("ok\n"), said("ok"), said("ok")) == ["   │ ok", "ok"]
    assert told(out("not ok\n"), said("ok")) == ["   │ not ok", "ok"]
    assert told(out("ok\n"), said("ok", turn=2)) == ["   │ ok", "ok"]
    assert told(out("ok\n"), said("ok", attempt=2)) == ["   │ ok", "ok"]
    assert told(out("ok\n", stream="stderr"), said("ok")) == ["   │ ok", "ok"]


def test_an_answer_of_which_a_part_was_not_shown_is_told_in_full() -> None:
    first, second = ANSWER.split("\n")
    assert told(out(second + "\n"), said(ANSWER)) == [f"   │ {second}", first, second]
    assert told(out(first + "\n", truncated=len(second) + 1), said(ANSWER))[-2:] == [first, second]


def test_the_end_of_a_long_output_is_enough() -> None:
    telling = Telling()
    for _ in range(200):
        telling.lines(out("x" * 2000 + "\n"))
    end = ("x" * 2000 + "\n") * 30
    assert telling.lines(said(end[-60_000:])) == []
    for _ in range(200):
        telling.lines(out("x" * 2000 + "\n"))
    assert telling.lines(said("x" * (KEPT + 4000))) != []


def test_a_log_that_grew_is_told_once() -> None:
    grew = event("log.updated", path="WORKLOG.md", added_lines=15, kind="work")
    written = event("file.written", path="WORKLOG.md", kind="modified", added_lines=15, removed_lines=0)
    assert told(grew, written) == ["   ~ WORKLOG.md (+15 lines)"]
    assert told(written, grew) == ["   ~ WORKLOG.md (+15 -0)"]
    assert len(told(grew, written, grew, written)) == 2
    assert len(told(written, written)) == 2
    assert len(told(grew, written | {"data": written["data"] | {"added_lines": 16}})) == 2
    assert len(told(grew, written | {"data": written["data"] | {"removed_lines": 1}})) == 2
    assert len(told(grew, written | {"turn": 2})) == 2


@given(st.lists(st.text("ab \n", max_size=12), max_size=6), st.text("ab \n", min_size=1, max_size=12))
def test_every_word_of_every_message_is_shown(printed: list[str], message: str) -> None:
    shown = "\n".join(told(*(out(text + "\n") for text in printed), said(message))).replace("   │ ", "")
    assert message.strip() in shown


def test_what_was_told_before_is_not_told_again(capsys: Any) -> None:
    with LiveView(None) as live, PlainView() as plainly, JsonView() as raw:
        for view in (live, plainly, raw):
            view.seen(out(ANSWER + "\n"))
            view.seen(event("usage.recorded", total=500))
            view.item(said(ANSWER))
        assert "500 tok" in live.figures(live.progress)
    shown = capsys.readouterr().out
    assert shown.count("It fails, as it should.") == 1, "only JSON has every event"


def test_going_on_is_told_once() -> None:
    asked = event("run.resumed", turn=None, by="usr_local")
    taken = event("run.resumed", turn=None, host_id="h", worker="w")
    assert told(asked, taken) == ["resumed by usr_local"]


def test_a_turn_that_was_cut_short_is_not_called_done() -> None:
    ends = [
        event("turn.completed", stop_reason=why) for why in ("end_turn", "cancelled", "interrupted", None)
    ]
    assert [line.split(" · ")[0].strip() for line in told(*ends)] == [
        "turn 1 done", "turn 1 cut short by the cancel", "turn 1 interrupted", "turn 1 done",
    ]  # fmt: skip


def test_both_views_tell_it_once(capsys: Any) -> None:
    with LiveView(None) as live, PlainView() as plainly:
        for view in (live, plainly):
            view.item(out(ANSWER + "\n"))
            view.item(said(ANSWER))
    assert capsys.readouterr().out.count("It fails, as it should.") == 2
