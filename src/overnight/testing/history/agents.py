"""The agents' own record: what the witnesses wrote about their lives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an agent was told that had asked leave. `said`: the option, or that the question was cancelled."""

    at: float
    item: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLife:
    """One agent process. Times are of the boot clock; `seen` is the last moment at which it is known to have lived."""

    run_id: str
    turn: int
    attempt: int
    token: int
    pid: int
    began: float
    seen: float
    ended: float | None = None
    lines: int | None = None
    """How many lines it had printed when it ended in order."""
    clashed: bool = False
    """Another agent of the run was alive when it began."""
    job: str = ""
    """What its prompt told it to do."""
    asked: tuple[str, ...] = ()
    """The tool calls for which it asked leave."""
    told: tuple[Told, ...] = ()

    @property
    def name(self) -> str:
        """As it stands in every line that it prints."""
        return f"{self.turn}.{self.attempt}.{self.pid}"

    @property
    def place(self) -> tuple[int, int]:
        """Turn and attempt."""
        return self.turn, self.attempt


def read_agents(path: Path) -> tuple[AgentLife, ...]:
    """Every life in the record, in the order in which they began; a last line that was cut off is no entry."""
    if not path.exists():
        return ()
    whole = path.read_bytes().rpartition(b"\n")[0]
    return lives([orjson.loads(line) for line in whole.splitlines() if line])


def lives(entries: Iterable[dict[str, object]]) -> tuple[AgentLife, ...]:
    """Put the lives together from the lines of the record."""
    found: dict[tuple[str, int, int, int], AgentLife] = {}
    for entry in entries:
        key, at = _key(entry), _number(entry["at"])
        life = found.get(key)
        if entry["what"] == "began" or life is None:
            run_id, turn, attempt, pid = key
            found[key] = AgentLife(
                run_id=run_id, turn=turn, attempt=attempt, token=int(_number(entry["token"])), pid=pid,
                began=at, seen=at, job=str(entry.get("job", "")),
            )  # fmt: skip
        else:
            found[key] = _more(life, str(entry["what"]), at, entry)
    return tuple(sorted(found.values(), key=lambda life: life.began))


def _more(life: AgentLife, what: str, at: float, entry: dict[str, object]) -> AgentLife:
    life = replace(life, seen=max(life.seen, at))
    match what:
        case "clash":
            return replace(life, clashed=True)
        case "asked":
            return replace(life, asked=(*life.asked, str(entry["item"])))
        case "told":
            told = Told(at=at, item=str(entry["item"]), said=str(entry["said"]))
            return replace(life, told=(*life.told, told))
        case "ended":
            return replace(life, ended=at, lines=int(_number(entry["lines"])))
        case _:
            return life


def _key(entry: dict[str, object]) -> tuple[str, int, int, int]:
    turn, attempt, pid = (int(_number(entry[name])) for name in ("turn", "attempt", "pid"))
    return str(entry["run"]), turn, attempt, pid


def _number(value: object) -> float:
    assert isinstance(value, int | float), f"{value!r} is no number"
    return value
