"""Who takes which runs: what this worker offers, and what all workers together may have under way at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from overnight.config.backends import BackendSettings
from overnight.config.sources import Sources
from overnight.domain.placement import at_root
from overnight.domain.queue_limits import NO_LIMITS, QueueLimits, Rate
from overnight.domain.spec import NEEDS

_MOST: Final = 1_000_000
_LONGEST_LABEL: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What the operator decided about the queue."""

    limits: QueueLimits = NO_LIMITS
    quarantine_after: int = 3
    """Failures in a row; 0: never."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of this worker."""
    backends: tuple[str, ...] | None = None
    """That this worker offers; None: all that it has."""
    shared_roots: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """Where runs may lie that this worker can take, besides its own host."""
        return tuple(at_root(root) for root in self.shared_roots)

    def offered(self, known: Iterable[str]) -> tuple[str, ...]:
        """Of the backends that are there, those that this worker offers."""
        return tuple(name for name in known if self.backends is None or name in self.backends)


def queue(sources: Sources, known: tuple[BackendSettings, ...]) -> QueueSettings:
    """Raises ConfigInvalid that names the entry."""
    names = frozenset(backend.name for backend in known)
    for key in ("queue.backend_limits", "queue.rates"):
        _check_named(sources, key, names)
    return QueueSettings(
        limits=QueueLimits(
            backends=_counts(sources, "queue.backend_limits"),
            labels=_labelled(sources),
            rates=_rates(sources),
        ),
        quarantine_after=cast("int", sources["queue.quarantine_after"]),
        labels=_labels(sources),
        backends=_backends(sources, names),
        shared_roots=_shared_roots(sources),
    )


def _check_named(sources: Sources, key: str, known: frozenset[str]) -> None:
    """A limit for what is no backend would hold nobody back, and nobody would notice."""
    for name in cast("dict[str, object]", sources[key]):
        if name not in known:
            raise sources.in_table(key, (name,), f"is no backend; known: {', '.join(sorted(known))}")


def _counts(sources: Sources, key: str) -> dict[str, int]:
    table = cast("dict[str, object]", sources[key])
    for name, most in table.items():
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= _MOST:
            raise sources.in_table(key, (name,), f"must be a whole number from 1 to {_MOST}")
    return cast("dict[str, int]", dict(table))


def _labelled(sources: Sources) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for entry, most in _counts(sources, "queue.label_limits").items():
        name, separator, value = entry.partition("=")
        if not separator or not name or not value:
            raise sources.in_table("queue.label_limits", (entry,), 'must be named "label=value"')
        found[name, value] = most
    return found


def _rates(sources: Sources) -> dict[str, Rate]:
    found: dict[str, Rate] = {}
    for name, text in cast("dict[str, object]", sources["queue.rates"]).items():
        try:
            found[name] = Rate.parse(text if isinstance(text, str) else "")
        except ValueError as error:
            raise sources.in_table("queue.rates", (name,), str(error)) from None
    return found


def _labels(sources: Sources) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in cast("tuple[str, ...]", sources["worker.labels"]):
        name, separator, value = (part.strip() for part in entry.partition("="))
        if not separator or not name or not value or max(len(name), len(value)) > _LONGEST_LABEL:
            raise sources.refuse("worker.labels", f"has {entry!r}", mend="write name=value, such as gpu=a100")
        if name.startswith(NEEDS):
            raise sources.refuse(
                "worker.labels", f"has {entry!r}", mend=f"leave {NEEDS} out: it belongs to the labels of runs"
            )
        if found.setdefault(name, value) != value:
            raise sources.refuse("worker.labels", f"gives {name} two values", mend="keep one of them")
    return found


def _backends(sources: Sources, known: frozenset[str]) -> tuple[str, ...] | None:
    names = cast("tuple[str, ...]", sources["worker.backends"])
    for name in names:
        if name not in known:
            raise sources.refuse(
                "worker.backends",
                f"names {name!r}, which is no backend",
                mend=f"known: {', '.join(sorted(known))}",
            )
    return names or None


def _shared_roots(sources: Sources) -> tuple[str, ...]:
    roots = cast("tuple[Path, ...] | None", sources["worker.shared_roots"]) or ()
    allowed = [os.path.realpath(path) for path in cast("tuple[Path, ...]", sources["workspace_roots"])]
    for root in roots:
        real = os.path.realpath(root)
        if real != str(root):
            raise sources.refuse(
                "worker.shared_roots", f"names {root}, which leads to {real}", mend=f"name {real} itself"
            )
        if not root.is_dir():
            raise sources.refuse("worker.shared_roots", f"names {root}, which is no directory")
        if not any(os.path.commonpath((real, one)) == one for one in allowed):
            raise sources.refuse(
                "worker.shared_roots",
                f"names {root}, which lies beneath no root of workspaces",
                mend="name it in workspace_roots too",
            )
    return tuple(map(str, roots))
