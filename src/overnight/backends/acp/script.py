"""What one turn is to come to, as far as the protocol is concerned: made by the program, followed by the codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

UsageStyle = Literal["result", "quota", "chunks", "none"]
"""Where a program tells the usage of one turn: in the prompt's result, in the result's quota, in the chunks of
messages (to be added up), or nowhere. Whether cached input is counted within the input is seen from the totals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One turn. The same script and the same lines make the same conversation."""

    workspace: str
    """Absolute."""
    prompt: str
    resume: str | None = None
    """The agent's session to go on with."""
    cost_before: float = 0.0
    """What the session had cost before this turn, for agents that report the session's total."""
    mode: str | None = None
    """The agent's mode to choose. One that cannot be chosen fails the turn: the agent might act without asking."""
    model: str | None = None
    effort: str | None = None
    auth: str | None = None
    """The authentication method to name, where the agent offers it."""
    reads: bool = True
    """Whether the agent may have files read by us."""
    writes: bool = True
    terminals: bool = True
    forms: bool = False
    """Whether the agent may put questions as forms."""
    session: Mapping[str, object] = field(default_factory=dict)
    """Further members of the request for a session."""
    usage: UsageStyle = "result"
    error_prefix: str | None = None
    """With this a program begins its last words when it answers a failed turn like a good one."""
    history_ends_with: str | None = None
    """The update after which a program that goes on telling a loaded session's history has come to its end."""
