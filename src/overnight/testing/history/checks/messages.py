"""Promise 1 for conversations: a message gets exactly one turn, in order, or none when it was taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from overnight.testing.history.entries import Conversation, Posted, TakenBack
from overnight.testing.history.model import History, Message, Violation


def check(history: History) -> Iterator[Violation]:
    """What everybody has said, against what the servers have of it and what the agents were told to answer."""
    posted: dict[str, dict[str, list[Posted]]] = {}
    for entry in history.of(Posted):
        posted.setdefault(entry.session_id, {}).setdefault(entry.key, []).append(entry)
    back = {entry.key: entry.outcome for entry in history.of(TakenBack) if entry.outcome != "unknown"}
    for session_id, by_key in posted.items():
        told = [one for one in history.told.get(session_id, ()) if one.role == "user" and one.key]
        yield from _said(by_key, Counter(one.key for one in told), back)
        yield from _in_order(session_id, [key for key in by_key if key in {one.key for one in told}], told)
        yield from _turns(history, session_id, told)
    yield from _servers_agree(history)


def _said(
    by_key: dict[str, list[Posted]], told: Counter[str | None], back: Mapping[str, str]
) -> Iterator[Violation]:
    """Each message once, or not at all, as its sender has learned."""
    for key, answers in by_key.items():
        accepted = any(entry.outcome == "accepted" for entry in answers)
        if len({entry.message_id for entry in answers if entry.message_id}) > 1:
            yield _broken(key, "one key made several messages")
        if told[key] > 1:
            yield _broken(key, f"it was said {told[key]} times")
        if accepted and not told[key] and back.get(key) != "accepted":
            yield _broken(key, "it was accepted, and never said")
        if told[key] and back.get(key) == "accepted":
            yield _broken(key, "it was taken back, and said all the same")
        if told[key] and all(entry.outcome == "refused" for entry in answers):
            yield _broken(key, f"it was refused ({answers[-1].code}), and said all the same")
        if not accepted and answers[-1].outcome == "unknown":
            yield _broken(key, "its outcome was never found out, although the same key was to be sent again")
    for stranger in told.keys() - by_key.keys():
        yield _broken(str(stranger), "nobody posted it")


def _in_order(session_id: str, posted: list[str], told: list[Message]) -> Iterator[Violation]:
    """One person posts one message after the other: they are said in that order."""
    said = list(dict.fromkeys(one.key for one in told if one.key in posted))
    if said != posted:
        yield _broken(session_id, f"posted were {', '.join(posted)}, said were {', '.join(map(str, said))}")


def _turns(history: History, session_id: str, told: list[Message]) -> Iterator[Violation]:
    """Each message begins a turn of its own, and one agent that was told just that comes to the end of its turn.

    One that was interrupted, as by a worker that ends in order, is followed by another with the same words.
    """
    places = Counter((one.run_id, one.turn) for one in told)
    for message in told:
        place, log = (message.run_id, message.turn), history.logs.get(message.run_id or "")
        if places[place] > 1 or None in place:
            yield _broken(
                str(message.key), f"it has no turn of its own: turn {message.turn} of {message.run_id}"
            )
        if log is None:
            yield _broken(str(message.key), f"nobody knows {message.run_id}, which was to answer it")
            continue
        lives = history.lives.get(log.run_id, ())
        answers = sum(life.job == message.key and life.place in log.ended_turns for life in lives)
        if log.final == "completed" and answers != 1:
            yield _broken(str(message.key), f"it was answered {answers} times in {log.run_id}")
    for run_id in {one.run_id for one in told if one.run_id is not None}:
        begun = sorted((one.turn, one.key) for one in told if one.run_id == run_id and one.turn is not None)
        for life in history.lives.get(run_id, ()):
            wanted = next((key for turn, key in reversed(begun) if turn <= life.turn), None)
            if life.job != wanted:
                yield _broken(session_id, f"agent {life.name} of {run_id} answered {life.job}, not {wanted}")


def _servers_agree(history: History) -> Iterator[Violation]:
    first: dict[str, Conversation] = {}
    for entry in history.of(Conversation):
        if entry.bodies != first.setdefault(entry.session_id, entry).bodies:
            yield _broken(entry.session_id, f"{entry.server} tells another conversation")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=1, subject=subject, words=words)
