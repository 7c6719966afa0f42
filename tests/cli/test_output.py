"""What is shown to a person: no escape gets through, and the figures add up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.cli.lines import lines
from overnight.cli.options import budgets, duration, pairs
from overnight.cli.output import ago, cells, columns, count, emit, facts, fitted, say, show, span
from overnight.cli.progress import STATES, Progress
from overnight.cli.runs import handle
from overnight.cli.views import JsonView, LiveView, PlainView
from overnight.domain.event import TYPES

EVIL = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\u202ee\r\x08f\x00g\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"


def harmless(text: str) -> bool:
    return not any(c in text for c in "\x1b\x9b\x07\x08\x00\r\u202e\x9d")


def event(type: str, **data: Any) -> dict[str, Any]:
    return {"seq": 1, "type": type, "at": "2026-01-31T12:00:00.000Z", "turn": 2, "attempt": 1, "data": data}


def test_every_way_out_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    show(EVIL)
    say(EVIL)
    facts([("name", EVIL), ("empty", ""), ("none", None)])
    columns(("A", "B"), [(EVIL, 1), ("x", EVIL)])
    emit({"text": EVIL})
    out, err = capsys.readouterr()
    assert harmless(err)
    assert all(harmless(line) for line in out.splitlines() if not line.startswith("{"))
    assert "link" in out


@pytest.mark.parametrize("width", [40, 60, 80, 240])
def test_a_table_fits_the_terminal_or_hides_nothing(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    goal = "テストを直して、" * 12
    columns(("RUN", "STATE", "GOAL"), [("run_" + "0" * 26, "completed", goal), ("修正", "x", "ok")])
    lines = capsys.readouterr().out.splitlines()
    if width < 57:
        assert goal in lines[1], "too narrow for the table: the terminal wraps it"
    else:
        assert all(cells(line) <= width for line in lines)
        assert lines[1].endswith("…") == (width < 240)
    assert cells(lines[2].partition("x")[0]) == len("run_" + "0" * 26) + 2, "columns stand beneath each other"


def test_cells_are_what_a_terminal_takes() -> None:
    assert [cells(text) for text in ("abc", "日本", "e\u0301", "", "🎉")] == [3, 4, 1, 0, 2]
    assert [fitted("日本語", room) for room in (6, 5, 4)] == ["日本語", "日本…", "日…"]


def test_json_on_a_terminal_is_pure_ascii(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    emit({"text": EVIL + "ü"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert harmless(out)
    assert json.loads(out)["text"] == EVIL + "ü"


@given(st.text())
def test_json_survives_any_text(text: str) -> None:
    emit({"text": text})


@pytest.mark.parametrize("type", sorted(TYPES))
def test_every_event_type_can_be_shown(type: str) -> None:
    assert isinstance(lines(event(type)), list)


@pytest.mark.parametrize(
    "type", ["message.completed", "output.recorded", "command.started", "file.written", "agent.custom"]
)
def test_the_plain_view_is_clean(type: str, capsys: pytest.CaptureFixture[str]) -> None:
    PlainView().item(event(type, text=EVIL, command=EVIL, path=EVIL, name=EVIL, data={"x": EVIL}))
    assert harmless(capsys.readouterr().out)


def test_the_live_view_is_clean_and_shows_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveView(50) as view:
        view.item(event("turn.started", backend=EVIL))
        view.item(event("message.completed", text=EVIL))
        view.item({"type": "message.delta", "text": EVIL, "item_id": "i", "offset": 0})
        view.item(event("output.recorded", text="[bold]not markup[/bold]\n", stream="stdout"))
    out = capsys.readouterr().out
    assert "[bold]not markup[/bold]" in out
    assert "\x1b]" not in out
    assert "\u202e" not in out


def test_json_view_prints_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonView() as view:
        view.item(event("run.started"))
    assert json.loads(capsys.readouterr().out) == event("run.started")


def test_progress_adds_up() -> None:
    progress = Progress(turns=50)
    progress.feed(event("run.started"))
    progress.feed(event("turn.started"))
    progress.feed(event("usage.recorded", total=100, cost_usd=0.5))
    progress.feed(event("usage.recorded", total=150, cost_usd=0.75))
    progress.feed(event("usage.recorded", total=50) | {"turn": 3})
    progress.feed(event("file.written", path="a"))
    progress.feed(event("file.written", path="a"))
    progress.feed(event("tests.completed", passed=3, failed=1, skipped=0))
    progress.feed(event("command.started", command="make\ntest"))
    assert (progress.state, progress.turn, progress.tokens, progress.cost_usd) == ("running", 2, 200, 0.75)
    assert LiveView.figures(progress) == "turn 2/50 · 200 tok · $0.75 · 1 file · tests 3/4 · $ make test"
    progress.feed(event("run.completed", by="pattern"))
    assert progress.state == "completed"


def test_every_state_event_is_a_type() -> None:
    assert set(STATES) <= set(TYPES)


def test_durations_sizes_and_budgets_are_read() -> None:
    import typer

    assert [duration(text) for text in ("90", "60s", "5m", "2h", "1d", "0.5s")] == [
        90,
        60,
        300,
        7200,
        86_400,
        0.5,
    ]
    assert budgets(["5usd", "2.5 USD", "2000tokens"]) == {"cost_usd": 2.5, "tokens": 2000}
    assert budgets(["200k tokens"]) == {"tokens": 200_000}
    assert pairs(["A=b=c", "D="], "--env") == {"A": "b=c", "D": ""}
    for bad in ("5", "usd", "-5usd", "5 euros", "1e9usd", "\u0665usd"):
        with pytest.raises(typer.BadParameter):
            budgets([bad])


def test_figures_are_short() -> None:
    assert [count(n) for n in (0, 999, 12_345, 4_100_000, None)] == ["0", "999", "12.3k", "4.1M", ""]
    assert [span(s) for s in (8.9, 192, 7500, 356_400)] == ["8s", "3m12s", "2h05m", "4d03h"]
    assert ago(None) == ""


def test_a_narrow_terminal_shows_the_end_of_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "run_01m7z93gvre2asycvy53qhy8xn"
    assert handle(whole) == whole, "a file or a pipe gets all of it"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for width, shown in ((80, "cvy53qhy8xn"[-10:]), (200, whole)):
        monkeypatch.setenv("COLUMNS", str(width))
        assert handle(whole) == shown


def test_the_live_line_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with LiveView(50) as view:
        view.item(event("run.started"))
        view.item(event("command.started", command="日本語" * 40))
        assert "━" not in capsys.readouterr().out
        (task,) = view.bar.tasks
        assert cells(task.fields["figures"]) <= 16
