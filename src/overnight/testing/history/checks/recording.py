"""What every verdict rests on: that each server has told all that it was asked in the end."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.testing.history.entries import Conversation, Listed, Logged
from overnight.testing.history.model import History, Violation


def check(history: History) -> Iterator[Violation]:
    """Every server gave its list, the log of each run, and each conversation."""
    listed = {entry.server for entry in history.of(Listed)}
    logged = {(entry.server, entry.run_id) for entry in history.of(Logged)}
    told = {(entry.server, entry.session_id) for entry in history.of(Conversation)}
    for server in history.opened.servers if history.opened else ():
        if server not in listed:
            yield _broken(server, "it gave no list in the end")
        for run_id in history.logs:
            if (server, run_id) not in logged:
                yield _broken(run_id, f"{server} did not give its log")
        for session_id in history.told:
            if (server, session_id) not in told:
                yield _broken(session_id, f"{server} did not give its history")
    if history.closed is None:
        yield _broken("the history", "the recording broke off")


def _broken(subject: str, words: str) -> Violation:
    return Violation(promise=0, subject=subject, words=words)
