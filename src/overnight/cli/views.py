"""Ways to show a run while it goes on: JSON lines, plain lines, and a live view with figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Final, Protocol, Self

from overnight.cli.lines import Line
from overnight.cli.output import count, emit, fitted, say, show
from overnight.cli.progress import Progress
from overnight.cli.telling import Telling
from overnight.domain.text import plain

_ROOM_FOR_A_BAR: Final = 72
"""Columns of a terminal."""


class View(Protocol):
    """Shows items as they come; a context manager, so that a live view can put the terminal in order again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def deltas(self) -> bool:
        """Whether it has a use for fragments."""
        ...

    def item(self, item: Mapping[str, Any]) -> None:
        """Show an event or a delta."""
        ...

    def seen(self, event: Mapping[str, Any]) -> None:
        """Take in an earlier event that is not to be shown, for what the later ones build on."""
        ...

    def note(self, text: str) -> None:
        """Words for the person, beside what is shown."""
        ...

    def still(self) -> AbstractContextManager[None]:
        """Leave the terminal alone for as long: somebody is asked something there."""
        ...


def view_for(*, as_json: bool, turns: int | None) -> View:
    """JSON when asked for, the live view on a terminal, else plain lines."""
    if as_json:
        return JsonView()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return LiveView(turns)
    return PlainView()


class JsonView:
    """Every event as it is, one a line."""

    deltas = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def item(self, item: Mapping[str, Any]) -> None:
        """One line."""
        emit(item)

    def seen(self, event: Mapping[str, Any]) -> None:
        """Nothing: each event stands by itself."""

    def note(self, text: str) -> None:
        """On stderr."""
        say(text)

    def still(self) -> AbstractContextManager[None]:
        """Nothing moves here anyway."""
        return nullcontext()


class PlainView(JsonView):
    """Lines without colours, for files and pipes."""

    def __init__(self) -> None:
        self._telling = Telling()

    def item(self, item: Mapping[str, Any]) -> None:
        """The lines of an event, with its time."""
        for line in self._telling.lines(item):
            show(f"{str(item.get('at', ''))[11:19]} {line.text}")

    def seen(self, event: Mapping[str, Any]) -> None:
        """So that words told by it are not told again."""
        self._telling.lines(event)


class LiveView:
    """Lines that scroll by, and beneath them one line with what goes on now."""

    deltas = True

    def __init__(self, turns: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._console = Console(highlight=False)
        self.progress = Progress(turns=turns)
        self._telling = Telling()
        self.bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            # Without a limit of turns nothing says how much is left; in a narrow place the figures need the room.
            *([BarColumn(bar_width=20)] if turns and self._console.width >= _ROOM_FOR_A_BAR else []),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            refresh_per_second=8,
        )
        self._task = self.bar.add_task("run", total=turns, state="…", figures="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def item(self, item: Mapping[str, Any]) -> None:
        """The lines of an event, and the figures after it."""
        self.progress.feed(item)
        for line in self._telling.lines(item):
            self._line(line)
        figures, width = self.figures(self.progress), self._console.width
        self.bar.update(
            self._task,
            completed=max(0, self.progress.turn - 1) if self.progress.turns else None,
            state=self.progress.state,
            figures=fitted(figures, max(16, width - (50 if width >= _ROOM_FOR_A_BAR else 24))),
        )

    def seen(self, event: Mapping[str, Any]) -> None:
        """So that words told by it are not told again, and figures begin where they are."""
        self.progress.feed(event)
        self._telling.lines(event)

    def note(self, text: str) -> None:
        """A line of its own above the figures."""
        self._line(Line(text, "yellow"))

    @contextmanager
    def still(self) -> Iterator[None]:
        """The line of figures goes away and comes back."""
        self.bar.stop()
        try:
            yield
        finally:
            self.bar.start()

    @staticmethod
    def figures(progress: Progress) -> str:
        """Turn, tokens, cost, files, tests, and what the agent does now, on one line."""
        parts = [f"turn {progress.turn}" + (f"/{progress.turns}" if progress.turns else "")]
        if progress.tokens:
            parts.append(f"{count(progress.tokens)} tok")
        if progress.cost_usd is not None:
            parts.append(f"${progress.cost_usd:.2f}")
        if progress.files:
            parts.append(f"{len(progress.files)} file{'s' if len(progress.files) > 1 else ''}")
        if progress.passed is not None:
            parts.append(f"tests {progress.passed}/{progress.passed + (progress.failed or 0)}")
        if progress.now:
            parts.append(progress.now)
        return " ".join(plain(" · ".join(parts)).split())

    def _line(self, line: Line) -> None:
        from rich.text import Text

        self._console.print(Text(plain(line.text), style=line.style), soft_wrap=True)
