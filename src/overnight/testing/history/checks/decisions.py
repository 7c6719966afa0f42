"""Promise 4: an approval is decided once, what was decided is what the log says, and what the agent was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from overnight.testing.history.agents import AgentLife, Told
from overnight.testing.history.entries import Decided
from overnight.testing.history.model import History, RunLog, Violation

OVER = {
    "approval.resolved": "resolved",
    "approval.expired": "expired",
    "approval.cancelled": "cancelled",
}
ALLOWED = "allow_once"


@dataclass(slots=True)
class _Asked:
    """One approval as its log tells of it."""

    run_id: str
    item: str | None
    ended: str | None = None
    """How; None while it is open."""
    option: str | None = None
    digest: object = None
    """Of the action as it was shown last."""


@dataclass(slots=True)
class _Book:
    """All approvals by id, and for each the answers of those who decided."""

    asked: dict[str, _Asked] = field(default_factory=dict)
    answers: dict[str, list[Decided]] = field(default_factory=dict)


def check(history: History) -> Iterator[Violation]:
    """What the log says of each approval, whether every decider learned the same, and whether the agents did."""
    book = _Book()
    for log in history.logs.values():
        yield from _log(log, book.asked)
    for entry in history.of(Decided):
        book.answers.setdefault(entry.approval_id, []).append(entry)
    for approval_id, answers in book.answers.items():
        yield from _answers(approval_id, answers, book.asked.get(approval_id))
    for approval_id, asked in book.asked.items():
        yield from _by_somebody(approval_id, asked, book.answers.get(approval_id, []))
    for run_id, lives in history.lives.items():
        yield from _released(run_id, lives, book)


def _log(log: RunLog, asked: dict[str, _Asked]) -> Iterator[Violation]:
    mine: dict[str, _Asked] = {}
    items: set[tuple[object, ...]] = set()
    for event in log.events:
        data = event["data"]
        if not isinstance(data, dict) or data.get("approval_id") is None:
            continue  # what a rule decides is no approval
        approval_id = str(data["approval_id"])
        if event["type"] == "approval.requested":
            one = mine.setdefault(approval_id, _Asked(log.run_id, _item(data)))
            place = event["turn"], event["attempt"], one.item
            if one.item is not None and place in items and not data.get("changed"):
                yield _broken(approval_id, f"event {event['seq']} asks about {one.item} once more")
            items.add(place)
            one.digest = data.get("digest")
        elif event["type"] in OVER:
            yield from _ends(approval_id, mine.get(approval_id), event, data)
    for approval_id, one in mine.items():
        if log.final is not None and one.ended is None:
            yield _broken(approval_id, f"{log.run_id} is over, and the question still open")
    asked |= mine


def _ends(
    approval_id: str, one: _Asked | None, event: dict[str, object], data: dict[str, object]
) -> Iterator[Violation]:
    if one is None:
        yield _broken(approval_id, f"event {event['seq']} ends it, and nobody had asked")
        return
    if one.ended is not None:
        yield _broken(approval_id, f"event {event['seq']} decides it once more")
    if event["type"] == "approval.resolved" and data.get("digest") != one.digest:
        yield _broken(approval_id, f"event {event['seq']} is of another action than was shown")
    one.ended = OVER[str(event["type"])]
    one.option = option_of(data) if one.ended != "cancelled" else None


def _item(data: dict[str, object]) -> str | None:
    context = data.get("context")
    found = context.get("item_id") if isinstance(context, dict) else None
    return None if found is None else str(found)


def option_of(data: dict[str, object]) -> str | None:
    """The option that an `approval.resolved` or `.expired` names."""
    decision = data.get("decision")
    found = decision.get("option") if isinstance(decision, dict) else data.get("option")
    return str(found) if found is not None else None


def _answers(approval_id: str, answers: list[Decided], asked: _Asked | None) -> Iterator[Violation]:
    accepted = {entry.option for entry in answers if entry.outcome == "accepted"}
    if len(accepted) > 1:
        yield _broken(approval_id, f"it was decided as {' and as '.join(sorted(accepted))}")
    counts = {entry.counts for entry in answers if entry.counts is not None}
    if len(counts) > 1:
        yield _broken(approval_id, f"deciders were told that {' and that '.join(sorted(counts))} counts")
    for option in sorted(accepted | counts):
        if asked is None or asked.ended is None:
            yield _broken(approval_id, f"{option} was accepted, and the log does not know of it")
        elif asked.option != option:
            yield _broken(approval_id, f"{option} was accepted, and the log says {asked.option}")


def _by_somebody(approval_id: str, asked: _Asked, answers: list[Decided]) -> Iterator[Violation]:
    """Nothing that was refused, or that nobody has said, counts as decided."""
    if asked.ended == "resolved" and not any(
        entry.option == asked.option and entry.outcome != "refused" for entry in answers
    ):
        yield _broken(approval_id, f"the log says {asked.option}, and nobody's word for it was accepted")


def _released(run_id: str, lives: tuple[AgentLife, ...], book: _Book) -> Iterator[Violation]:
    """An agent is told once what was decided, not before; leave that was given lets exactly one agent go on.

    A question that its agent did not live to see answered may be answered to the one that asks the same again.
    """
    mine = {
        one.item: approval_id for approval_id, one in book.asked.items() if one.run_id == run_id and one.item
    }
    for life in lives:
        for told in life.told:
            if told.item not in life.asked:
                yield _broken(run_id, f"agent {life.name} was told {told.said}, and had not asked")
            elif told.item in mine:
                yield from _its_own(life, told, mine[told.item], book)
        for item, times in Counter(told.item for told in life.told).items():
            if times > 1:
                yield _broken(run_id, f"agent {life.name} was answered {times} times about {item}")
    allowed = sum(told.said == ALLOWED for life in lives for told in life.told)
    given = sum(book.asked[approval_id].option == ALLOWED for approval_id in mine.values())
    if allowed > given:
        yield _broken(run_id, f"leave was given {given} times, and its agents had it {allowed} times")


def _its_own(life: AgentLife, told: Told, approval_id: str, book: _Book) -> Iterator[Violation]:
    asked, answers = book.asked[approval_id], book.answers.get(approval_id, [])
    if told.said == "cancelled":
        return
    if asked.ended != "resolved" or asked.option != told.said:
        yield _broken(approval_id, f"agent {life.name} was told {told.said}, the log says {asked.option}")
    first = min((entry.sent for entry in answers if entry.outcome != "refused"), default=None)
    if first is not None and told.at < first:
        yield _broken(
            approval_id, f"agent {life.name} was told {first - told.at:.3f} s before anybody decided"
        )


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=4, subject=subject, words=words)
