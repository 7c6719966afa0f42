"""What a codec that talks back adds to one that only listens: messages of ours, and deeds that the agent asks for.

Every message has a key that follows from the conversation alone. A key is stored before its message is sent, and a
message whose key is stored is not sent again: so each is sent once, whichever server comes to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from overnight.backends.process.program import Codec, Program
from overnight.domain.update import Asked
from overnight.ports.backend import TurnStart, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """A message for the agent's stdin."""

    key: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadText:
    """The agent wants a text file. `line` is the first one wanted, from 1; `limit` the number of lines."""

    key: str
    path: str
    line: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteText:
    """The agent wants a text file to have this text."""

    key: str
    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTerminal:
    """The agent wants a command to be run for it. Without `args`, `command` is a shell line."""

    key: str
    terminal: str
    command: str
    args: tuple[str, ...] = ()
    cwd: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    output_bytes: int


TerminalVerb = Literal["output", "wait", "kill", "release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UseTerminal:
    """The agent wants to know or end something about a command that it had started."""

    key: str
    terminal: str
    verb: TerminalVerb
    output_bytes: int = 0
    """As when it was opened."""


Deed = ReadText | WriteText | OpenTerminal | UseTerminal
Errand = Say | Deed


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What stands in a file."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """It was done, and there is nothing to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalState:
    """What a command has printed, and how it ended; neither exit code nor signal while it runs."""

    output: str = ""
    truncated: bool = False
    ended: bool = False
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """It was not done, and why."""

    code: Literal["not_found", "refused", "failed"]
    message: str


Result = Text | Done | TerminalState | Refusal


@runtime_checkable
class Talking(Codec, Protocol):
    """A codec that talks back. Its state follows from the lines it was fed and the messages it was told of."""

    @property
    def max_line(self) -> int:
        """Bytes of a message that the agent may send."""
        ...

    @property
    def under_way(self) -> bool:
        """Whether the agent has been given its prompt."""
        ...

    @property
    def over(self) -> bool:
        """Whether the agent has nothing more to do: its stdin may be closed."""
        ...

    def said(self, messages: Iterable[bytes]) -> None:
        """These messages are stored. Before a replay: all of them; later: each one as it is stored."""
        ...

    def errands(self) -> list[Errand]:
        """What has come up since the last call, and is to be said or done without asking anybody."""
        ...

    def asks(self) -> tuple[Asked, ...]:
        """What the agent waits for people's answers to, oldest first."""
        ...

    def decide(self, key: str, verdict: Verdict) -> Errand | None:
        """What a verdict comes to; None when nothing waits for it. Changes nothing until the reply is `said`."""
        ...

    def reply(self, key: str, result: Result) -> Say | None:
        """The message that tells what came of a deed; None when the agent does not wait for it any more."""
        ...

    def terminal_of(self, item_id: str) -> str | None:
        """The terminal of ours in which the output of a tool call is."""
        ...

    def farewell(self) -> bytes:
        """The agent's own interrupt: everything that it waits for is cancelled, and the turn too."""
        ...


@runtime_checkable
class TalkingProgram(Program, Protocol):
    """A program whose codec talks back."""

    @property
    def patience_s(self) -> float:
        """How long it may take to end once its work is done and its stdin is closed; then it is ended."""
        ...

    def tool_environment(self, start: TurnStart) -> Mapping[str, str]:
        """The whole environment of commands that are run for the agent: without what only the agent may know."""
        ...
