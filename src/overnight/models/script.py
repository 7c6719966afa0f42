"""The script: which move the model makes next. Pure; the server asks, the dialects put it into words.

A script is JSON: a list of moves, or an object

    {"by": "tool_results" | "counter", "turns": [{"match": "text in the prompt"?, "moves": [...]}, ...]}

and a move is an object with any of `text`, `reasoning`, `tool` + `arguments` (or `tools`, a list of such pairs),
`finish`, `fault`, `message`, `retry_after_s`, `delay_s`. `$TURN` in texts and arguments becomes the number of the
conversation's turn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Fault = Literal["400", "401", "403", "404", "429", "500", "503", "529", "invalid_json", "disconnect", "hang"]
"""A status answered instead of a reply, or a way in which the reply is spoilt half-way."""

Chooser = Literal["tool_results", "counter"]
"""`tool_results`: by the results since the last user message, safe with many agents. `counter`: one after another."""

AFTERWARDS = "There is nothing left to do."
"""What the model says when it has no move left."""

_MOVE_KEYS = frozenset(
    (
        "text",
        "reasoning",
        "tool",
        "arguments",
        "tools",
        "finish",
        "fault",
        "message",
        "retry_after_s",
        "delay_s",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A tool call by name; the abstract names `shell`, `write_file`, `read_file` are mapped for each client."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One answer of the model: thoughts, words and calls, or a fault.

    `delay_s` is the pause before each streamed piece. `finish` calls the finishing tool of clients that need one.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish: bool = False
    fault: Fault | None = None
    message: str = ""
    retry_after_s: float | None = None
    delay_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The moves of one user turn; with `match`, of every turn whose prompt contains that text."""

    moves: tuple[Move, ...]
    match: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """All that the model will do. Past the last move it says `afterwards`; past the last turn the last one repeats."""

    turns: tuple[Turn, ...]
    by: Chooser = "tool_results"
    afterwards: str = AFTERWARDS

    def turn_for(self, number: int, prompt: str) -> Turn:
        """The turn whose `match` is in `prompt`, else the `number`-th (from 1) of those without one."""
        for turn in self.turns:
            if turn.match is not None and turn.match in prompt:
                return turn
        plain = [turn for turn in self.turns if turn.match is None]
        return plain[min(number, len(plain)) - 1] if plain else Turn(moves=())


class Play:
    """A script being played: remembers how often each turn was asked, for scripts that go by the counter."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._asked: Counter[int] = Counter()

    def next_move(self, *, turn: int, prompt: str, results: int) -> Move:
        """The move for a request in user turn `turn` (from 1) that carries `results` tool results since its prompt."""
        chosen = self._script.turn_for(turn, prompt)
        position = results
        if self._script.by == "counter":
            position = self._asked[id(chosen)]
            self._asked[id(chosen)] += 1
        if position >= len(chosen.moves):
            return Move(text=self._script.afterwards)
        return _numbered(chosen.moves[position], turn)


def parse_script(source: str | bytes | list[Any] | dict[str, Any]) -> Script:
    """A script from JSON text or from the value it would decode to. Raises ValueError or TypeError."""
    value = json.loads(source) if isinstance(source, str | bytes) else source
    if isinstance(value, list):
        value = {"turns": [{"moves": value}]}
    if not isinstance(value, dict):
        raise TypeError("a script is a list of moves or an object with `turns`")
    _refuse_unknown(value, ("turns", "moves", "by", "afterwards"), "the script")
    turns = value.get("turns") or [{"moves": value.get("moves", [])}]
    by = value.get("by", "tool_results")
    if by not in get_args(Chooser):
        raise ValueError(f"`by` is {by!r}, not one of {', '.join(get_args(Chooser))}")
    return Script(turns=tuple(map(_turn, turns)), by=by, afterwards=value.get("afterwards", AFTERWARDS))


def _turn(value: Mapping[str, Any] | list[Any]) -> Turn:
    if isinstance(value, list):
        value = {"moves": value}
    _refuse_unknown(value, ("match", "moves"), "a turn")
    return Turn(moves=tuple(map(_move, value.get("moves", []))), match=value.get("match"))


def _move(value: Mapping[str, Any]) -> Move:
    _refuse_unknown(value, _MOVE_KEYS, "a move")
    pairs = list(value.get("tools", []))
    if "tool" in value:
        pairs.insert(0, {"tool": value["tool"], "arguments": value.get("arguments", {})})
    fault = None if value.get("fault") is None else str(value["fault"])
    if fault is not None and fault not in get_args(Fault):
        raise ValueError(f"`fault` is {fault!r}, not one of {', '.join(get_args(Fault))}")
    return Move(
        text=value.get("text", ""),
        reasoning=value.get("reasoning", ""),
        calls=tuple(Call(name=pair["tool"], arguments=pair.get("arguments", {})) for pair in pairs),
        finish=bool(value.get("finish", False)),
        fault=fault,  # type: ignore[arg-type]  # checked against the literal just above
        message=value.get("message", ""),
        retry_after_s=value.get("retry_after_s"),
        delay_s=float(value.get("delay_s", 0.0)),
    )


def _refuse_unknown(value: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{what} has unknown keys: {', '.join(unknown)}")


def _numbered(move: Move, turn: int) -> Move:
    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("$TURN", str(turn))
        if isinstance(value, Mapping):
            return {key: fill(part) for key, part in value.items()}
        return [fill(part) for part in value] if isinstance(value, list) else value

    return Move(
        text=fill(move.text),
        reasoning=fill(move.reasoning),
        calls=tuple(Call(name=call.name, arguments=fill(call.arguments)) for call in move.calls),
        finish=move.finish,
        fault=move.fault,
        message=fill(move.message),
        retry_after_s=move.retry_after_s,
        delay_s=move.delay_s,
    )
