"""Makes the events of a turn out of its backend's updates. Pure: time is given, drafts come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from overnight.domain import update as u
from overnight.domain.event import Draft, canonical
from overnight.domain.redaction import HOLD, Redactor
from overnight.domain.runners import RunnerResult, results
from overnight.domain.sentinel import BadSentinel, may_be_sentinel, parse
from overnight.domain.text import cut_utf8, first_line, plain, tail_utf8
from overnight.domain.values import Now, TestStats, Usage
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.output import OutputStream
from overnight.engine.telemetry.rates import Allowance, Slots

MAX_TEXT: Final = 262_144
"""Bytes of one message or block of reasoning in an event."""
MAX_OUTPUT: Final = 8192
"""Bytes of a tool's output in an event: its end."""
MAX_DATA: Final = 65_536
"""Bytes of arguments, plans and custom data in an event."""
MAX_RESULTS: Final = 262_144
"""Bytes of a command's output in which a test runner's closing lines are looked for: its end."""
USAGES_A_SECOND: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSummary:
    """What is known of a turn so far."""

    usage: Usage | None = None
    """The backend's count; the agent's own where the backend reports none."""
    tests: TestStats | None = None
    items: int = 0
    plans: int = 0
    """How often the agent has told its plan."""
    message: str = ""
    """The whole last message: the completion pattern is looked for in it."""
    last_message: str = ""
    """Its first line."""
    truncated_bytes: int = 0
    """Output that stays in the turn's files alone."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """sentinels, sentinels_bad, sentinels_dropped, files_dropped."""


class Interpreter:
    """One turn's updates in, drafts out. Times are seconds of one monotonic clock and never go backwards.

    `wall_ms` stamps the live line. `before` is what was known of the turn when it is taken up again in its middle,
    `unrecorded_s` how long nobody had recorded it then.
    `watched` are the files whose growth is measured beside: what the agent says of them would tell it twice.
    """

    def __init__(
        self,
        *,
        wall_ms: Callable[[], int],
        redactor: Redactor,
        files: FileLedger,
        before: TurnSummary | None = None,
        unrecorded_s: float = 0.0,
        watched: frozenset[str] = frozenset(),
    ) -> None:
        before = before or TurnSummary()
        self._wall_ms = wall_ms
        self._redactor = redactor
        self._files = files
        self._watched = watched
        self._streams = {
            name: OutputStream(name, redactor, unrecorded_s=unrecorded_s) for name in ("stdout", "stderr")
        }
        self._sentinels = Allowance(pieces=1000, size=1 << 20)
        self._customs = Allowance(pieces=1000, size=1 << 20)
        self._usages = Slots(USAGES_A_SECOND)
        self._usage = before.usage
        self._agents_usage: Usage | None = None
        self._usage_waits: u.UsageReported | None = None
        self._tests = before.tests
        self._items = before.items
        self._plans = before.plans
        self._message = before.message
        self._truncated = before.truncated_bytes
        self._now: Now | None = None
        self._doing: tuple[str, str] | None = None
        """Kind and text of the item that `now` shows, while nobody has asked."""
        self._since = 0
        self._at = 0.0
        self._release_at = float("-inf")
        """Until then a stream that is full stays so."""
        self._counters = {"sentinels": 0, "sentinels_bad": 0, "sentinels_dropped": 0, **before.counters}
        self._readers: dict[type, Callable[[Any], list[Draft]]] = {
            u.Message: self._on_message,
            u.Reasoning: self._on_reasoning,
            u.ToolStarted: self._tool_started,
            u.ToolCompleted: self._tool_completed,
            u.FileTouched: self._touched,
            u.PlanReported: self._plan,
            u.UsageReported: self._on_usage,
            u.LimitsReported: self._limits,
            u.Warned: self._warned,
            u.Custom: self._custom,
        }

    @property
    def now(self) -> Now | None:
        """What the agent is doing; changes when an item begins or ends."""
        if self._doing is not None:
            (item, text), self._doing = self._doing, None
            self._now = Now(item=item, text=self._redactor.text(first_line(text)), since=self._since)
        return self._now

    def feed(self, update: u.Update, now: float) -> list[Draft]:
        """The drafts that `update` makes at once. Output may be held back until `due`."""
        if type(update) is u.Output:
            stream = self._streams[update.stream]
            if stream.full and now < self._release_at and b"__" not in update.data:
                stream.drop(update.data, update.total)
                return []
            return self._output(update, stream, now)
        read = self._readers.get(type(update))
        if read is None:
            return []
        pending = [stream for stream in self._streams.values() if stream.due(now) is not None]
        early = [draft for stream in pending if stream.order_is_cheap(now) for draft in stream.release(now)]
        self._at = now
        return early + read(update)

    def due(self) -> float | None:
        """When what is held back must be flushed; None when nothing is."""
        return min(times) if (times := self._due_times()) else None

    def flush(self, now: float) -> list[Draft]:
        """Everything that was held back. Called before it is due, what is beyond the rate is counted, not shown."""
        drafts = [draft for stream in self._streams.values() for draft in stream.release(now)]
        return drafts + self._waiting_usage(now, late=True)

    def finish(self, now: float) -> list[Draft]:
        """The rest, at the turn's end: nothing may be fed after it."""
        drafts = []
        for stream in self._streams.values():
            drafts += stream.finish(now)
            drafts += [self._tested(result, command=None) for result in stream.quiet_results()]
        drafts += self._waiting_usage(now, late=True)
        if self._usage is None and self._agents_usage is not None:
            self._usage = self._agents_usage
        self._now = self._doing = None
        return drafts + self._losses()

    def summary(self) -> TurnSummary:
        """What is known so far; after `finish`, all there is."""
        return TurnSummary(
            usage=self._usage or self._agents_usage,
            tests=self._tests,
            items=self._items,
            plans=self._plans,
            message=self._message,
            last_message=first_line(self._message),
            truncated_bytes=self._truncated + sum(stream.total_dropped for stream in self._streams.values()),
            counters={**self._counters, "files_dropped": self._files.dropped},
        )

    def _output(self, update: u.Output, stream: OutputStream, now: float) -> list[Draft]:
        if update.stream == "stdout" and may_be_sentinel(update.data):
            told = self._sentinel(update, now)
            if told is not None:
                return told
        drafts = stream.release(now) if (due := stream.due(now)) is not None and due <= now else []
        drafts += [
            self._tested(result, command=None) for result in stream.feed(update.data, update.total, now)
        ]
        due = stream.due(now)
        if due is not None and due <= now:
            return drafts + stream.release(now)
        self._release_at = min(self._due_times(), default=now)
        return drafts

    def _due_times(self) -> list[float]:
        # Slots only ever become free, so an instant before all of them answers for every later one.
        times = [due for stream in self._streams.values() if (due := stream.due(float("-inf"))) is not None]
        if self._usage_waits is not None:
            times.append(self._usages.at(1, float("-inf")))
        return times

    def _sentinel(self, update: u.Output, now: float) -> list[Draft] | None:
        """The drafts of a sentinel line; None when it is to be shown as ordinary output."""
        self._at = now
        if not self._sentinels.take(update.total or len(update.data), now):
            self._counters["sentinels_dropped"] += 1
            return []
        found = parse(update.data, whole=update.total is None)
        if found is None:
            return None
        if isinstance(found, BadSentinel):
            self._counters["sentinels_bad"] += 1
            return None
        self._counters["sentinels"] += 1
        if isinstance(found, u.UsageReported):
            return self._on_usage(found)
        if found.type.startswith("file."):
            return self._files.claimed(found)
        if found.type == "log.updated" and found.data["path"] in self._watched:
            return []
        if found.type == "tests.completed":
            self._tests = _stats(found.data)
        return [found]

    def _on_message(self, update: u.Message) -> list[Draft]:
        self._items += 1
        self._message = plain(update.text)
        self._show("message", update.text)
        return [Draft(type="message.completed", data=self._spoken(update.item_id, update.text))]

    def _on_reasoning(self, update: u.Reasoning) -> list[Draft]:
        self._items += 1
        self._show("reasoning", update.text)
        return [Draft(type="reasoning.completed", data=self._spoken(update.item_id, update.text))]

    def _tool_started(self, update: u.ToolStarted) -> list[Draft]:
        if update.command is not None:
            self._show("command", update.command)
            command = self._long(update.command, MAX_DATA)
            return [Draft(type="command.started", data={"item_id": update.item_id, "command": command})]
        self._show("tool", update.name)
        data = {"item_id": update.item_id, "name": update.name, "arguments": _bounded(update.arguments)}
        return [Draft(type="tool.started", data=data)]

    def _tool_completed(self, update: u.ToolCompleted) -> list[Draft]:
        self._items += 1
        self._now = self._doing = None
        data: dict[str, object] = {
            "item_id": update.item_id,
            "ok": update.ok,
            "duration_ms": update.duration_ms,
        }
        data |= self._printed(update.output)
        if update.command is None:
            return [Draft(type="tool.completed", data={"name": update.name, **data})]
        command = self._long(update.command, MAX_DATA)
        data |= {"command": command, "exit_code": update.exit_code}
        found = results(tail_utf8(plain(update.output[-MAX_RESULTS:]), MAX_RESULTS)) if update.output else []
        tested = [self._tested(result, command=command, exit_code=update.exit_code) for result in found[-1:]]
        return [Draft(type="command.completed", data=data), *tested]

    def _touched(self, update: u.FileTouched) -> list[Draft]:
        self._items += update.kind != "read"
        return self._files.touched(update)

    def _plan(self, update: u.PlanReported) -> list[Draft]:
        self._items += 1
        self._plans += 1
        entries = [dict(entry) for entry in update.entries]
        return [Draft(type="plan.updated", data=_bounded({"entries": entries}))]

    def _limits(self, update: u.LimitsReported) -> list[Draft]:
        return [Draft(type="limits.reported", data=_bounded(update.data))]

    def _warned(self, update: u.Warned) -> list[Draft]:
        data = {"code": update.code, "message": self._long(update.message), "retryable": update.retryable}
        return [Draft(type="error.recorded", data=data)]

    def _custom(self, update: u.Custom) -> list[Draft]:
        data = _bounded(update.data)
        if not self._customs.take(len(canonical(data)), self._at):
            self._counters["customs_dropped"] = self._counters.get("customs_dropped", 0) + 1
            return []
        return [Draft(type="agent.custom", data={"name": update.name[:200], "data": data})]

    def _on_usage(self, update: u.UsageReported) -> list[Draft]:
        """The last report of a turn counts; the agent's own only while the backend has not reported any."""
        if update.source == "agent":
            if self._usage is not None:
                return []
            self._agents_usage = update.usage
        elif update.usage == self._usage:
            return []
        else:
            self._usage = update.usage
        self._usage_waits = update
        return self._waiting_usage(self._at, late=False)

    def _waiting_usage(self, now: float, *, late: bool) -> list[Draft]:
        update = self._usage_waits
        if update is None or not (late or self._usages.free(now) > 0):
            return []
        self._usage_waits = None
        self._usages.take(now)
        return [Draft(type="usage.recorded", data={**update.usage.to_json(), "source": update.source})]

    def _tested(self, result: RunnerResult, *, command: str | None, exit_code: int | None = None) -> Draft:
        self._tests = result.stats
        data: dict[str, object] = {
            "command": command,
            "exit_code": exit_code,
            "duration_ms": result.duration_ms,
        }
        return Draft(type="tests.completed", data={**data, **result.stats.to_json(), "runner": result.runner})

    def _losses(self) -> list[Draft]:
        """What was left out, said once."""
        lost = {**self._counters, "files_dropped": self._files.dropped}
        said = {
            "sentinels_bad": "sentinel lines could not be understood",
            "sentinels_dropped": "sentinel lines came faster than they can be recorded and are in the output file",
            "customs_dropped": "custom events came faster than they can be recorded and are in the output file",
            "files_dropped": "file changes were more than a turn may report; the diff has them",
        }
        return [
            Draft(
                type="error.recorded",
                data={"code": name, "message": f"{lost[name]} {words}", "retryable": False},
            )
            for name, words in said.items()
            if lost.get(name)
        ]

    def _show(self, item: str, text: str) -> None:
        self._doing = item, text
        self._since = self._wall_ms()

    def _spoken(self, item_id: str, text: str) -> dict[str, object]:
        text = plain(text)
        if len(text) * 4 <= MAX_TEXT:
            return {"item_id": item_id, "text": text}
        shown = cut_utf8(self._redactor.text(text), MAX_TEXT)
        left = len(text.encode("utf-8", "replace")) - len(shown.encode("utf-8", "replace"))
        data: dict[str, object] = {"item_id": item_id, "text": shown}
        return {**data, "truncated_bytes": left} if left > 0 else data

    def _printed(self, output: str) -> dict[str, object]:
        """The end of a tool's output as text, redacted before it is cut: half a secret is one too."""
        if len(output) * 4 <= MAX_OUTPUT:
            return {"output": plain(output), "truncated_bytes": 0}
        end = self._redactor.text(output[-4 * MAX_OUTPUT :])
        if len(output) > 4 * MAX_OUTPUT:
            end = end[HOLD:]
        end = plain(end)
        tail = tail_utf8(end, MAX_OUTPUT)
        whole = len(output) <= 4 * MAX_OUTPUT and tail == end
        left = len(output.encode("utf-8", "replace")) - len(tail.encode("utf-8", "replace"))
        return {"output": tail, "truncated_bytes": 0 if whole else max(left, 0)}

    def _long(self, text: str, limit: int = MAX_OUTPUT) -> str:
        return cut_utf8(self._redactor.text(plain(text)), limit)


def _bounded(data: Mapping[str, object]) -> dict[str, object]:
    """`data`, or how big it was where it is over the limit."""
    size = len(canonical(dict(data)))
    return dict(data) if size <= MAX_DATA else {"truncated_bytes": size}


def _stats(data: Mapping[str, object]) -> TestStats:
    counts = {name: int(value) for name, value in data.items() if isinstance(value, int) and name in _COUNTS}
    return TestStats(**counts)


_COUNTS: Final = frozenset({"passed", "failed", "skipped"})
