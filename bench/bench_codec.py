"""From the bytes of an agent to updates, against the least that can be done with them: reading and parsing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path

import orjson

from bench import stage
from bench.figure import Figure
from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.codex.codec import CodexCodec
from overnight.backends.process.framing import LineFramer, OutputTail
from overnight.backends.process.lines import protocol_object
from overnight.backends.process.output import STDERR, STDOUT, TurnOutput
from overnight.backends.process.program import Codec

LINES, ROUNDS, PIECE = 100_000, 5, 1 << 17
GOLDEN = Path(__file__).parents[1] / "tests" / "backends" / "golden"
CODECS: Mapping[str, Callable[[], Codec]] = {
    "codex": lambda: CodexCodec({}),
    "claude": lambda: ClaudeCodec("/w"),
}


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    for name, codec in CODECS.items():
        with stage.folder() as folder:
            (folder / STDERR).touch()
            (folder / STDOUT).write_bytes(_printed(name))
            yield from _measured(name, codec, folder)


def _measured(name: str, codec: Callable[[], Codec], folder: Path) -> Iterator[Figure]:
    calls = (_bare, _framed, lambda at: _updates(at, codec()))
    rates = [[_rate(call, folder) for call in calls] for _ in range(ROUNDS)]
    least, framed, updates = (statistics.median(column) for column in zip(*rates, strict=True))
    for what, value, aim in (
        ("framed and parsed", framed, "≥ 0.8 ×"),
        ("made into updates", updates, "≥ 0.35 ×"),
    ):
        yield Figure(
            name=f"lines of {name} {what}",
            value=value,
            unit="lines/s",
            limit=least,
            limit_name="os.read + orjson",
            aim=aim,
        )


def _rate(call: Callable[[Path], int], folder: Path) -> float:
    begun = time.perf_counter()
    return call(folder) / (time.perf_counter() - begun)


def _bare(folder: Path) -> int:
    file, count, rest = os.open(folder / STDOUT, os.O_RDONLY), 0, b""
    while piece := os.read(file, PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            orjson.loads(line)
        count += len(lines)
    os.close(file)
    return count


def _framed(folder: Path) -> int:
    framer, count = LineFramer(), 0
    with OutputTail(folder / STDOUT) as tail:
        size = tail.size()
        while piece := tail.read(size):
            for line in framer.feed(piece):
                protocol_object(line.data, line.total)
                count += 1
    return count


def _updates(folder: Path, codec: Codec) -> int:
    output = TurnOutput(folder, codec)
    sizes = output.sizes()
    while output.behind(*sizes):
        output.batch(*sizes)
    output.close()
    return LINES


def _printed(name: str) -> bytes:
    """What the real program printed in a turn, again and again."""
    lines = (GOLDEN / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(islice(cycle(lines), LINES))
