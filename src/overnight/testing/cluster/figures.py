"""What a trial measured, in words: figures, and no part of the verdict, which must not depend on a quiet machine."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.cluster.layout import Layout
from overnight.testing.history import History
from overnight.testing.history.delivery import deliveries
from overnight.testing.history.takeovers import takeovers


def told(layout: Layout, history: History) -> Iterator[str]:
    """Line by line."""
    yield from _takeovers(layout.lease_s, history)
    if (
        not layout.own_clocks
    ):  # where wall clocks jump, and much else is broken at the same time, it means nothing
        yield from _deliveries(layout.poll_s, history)


def _takeovers(lease_s: float, history: History) -> Iterator[str]:
    """How long runs were without a holder, and how near the end of an agent came to the next one's beginning."""
    found = list(takeovers(history))
    by_others = [one for one in found if one.by_others]
    own = len(found) - len(by_others)
    yield f"runs whose host was lost: {len(by_others)} taken over by others, {own} by their own host"
    for place in sorted({one.place for one in by_others}):
        longest = max(one.seconds for one in by_others if one.place == place)
        number = sum(1 for one in by_others if one.place == place)
        within = "within" if longest <= lease_s + 1 else "NOT within"
        bound = f"a lease and a second ({lease_s + 1:g} s)"
        yield f"  {place or 'conversation'}: {number}, the last after {longest:.1f} s, {within} {bound}"
    margins = [one.margin_s for one in by_others if one.margin_s is not None]
    if margins:
        yield f"  {len(margins)} had an agent alive when it was lost, last seen {min(margins):.1f} s before, or longer"


def _deliveries(poll_s: float, history: History) -> Iterator[str]:
    for one in deliveries(history, "valkey"):
        late = f"99 % within {one.most_s:.2f} s, all within {one.slowest_s:.2f} s (poll time {poll_s:g} s)"
        yield f"without Valkey for {one.lasted_s:.0f} s: {one.events} events delivered, {late}"
