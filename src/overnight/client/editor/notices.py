"""What happens to a run besides the agent's work, in words for the person at the editor. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Event = Mapping[str, Any]


def notice_of(kind: str, event: Event) -> str | None:
    """A sentence about an event; None for those that say nothing to a person, or that are told otherwise."""
    write = _WORDS.get(kind)
    return None if write is None else write(event)


def _again(event: Event) -> str | None:
    attempt = event.get("attempt") or 1
    return f"Turn {event.get('turn')} begins again, attempt {attempt}." if attempt > 1 else None


def _recovered(event: Event) -> str:
    adopted = event["data"].get("adopted")
    return (
        "The server was restarted; the agent worked on meanwhile."
        if adopted
        else "The server was restarted, and the agent was gone."
    )


def _paused(event: Event) -> str:
    data = event["data"]
    why = f": {data['message']}" if data.get("message") else f" by {data['by']}" if data.get("by") else ""
    return f"The run is paused{why}. The next message lets it go on."


def _warned(event: Event) -> str:
    data = event["data"]
    return f"{data.get('used')} of {data.get('limit')} {data.get('budget')} are used."


_WORDS: Final[Mapping[str, Callable[[Event], str | None]]] = {
    "turn.started": _again,
    "turn.failed": lambda event: f"The turn failed: {event['data'].get('message')}",
    "turn.abandoned": lambda _: "The agent of this turn is gone.",
    "run.recovered": _recovered,
    "run.paused": _paused,
    "run.steered": lambda event: f"Somebody told the agent: {event['data'].get('text')}",
    "question.asked": lambda event: f"The agent wrote down a question: {event['data'].get('text')}",
    "error.recorded": lambda event: str(event["data"].get("message")),
    "budget.warned": _warned,
}
"""A run that waits for a person needs none: its approval is put to the user."""
